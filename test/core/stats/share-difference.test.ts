import { describe, expect, it } from 'vitest';
import { createRandom } from '../../../src/stats/random.ts';
import { logShareDifference } from '../../../src/stats/share-difference.ts';

describe('evidence that two shares differ', () => {
  it('is what SciPy computes, and the same whichever arm is named first', () => {
    const golden = [
      [3, 10, 8, 10, 0.37283149612266087],
      [0, 5, 0, 9, -4.094344562222101],
      [900, 1000, 8000, 9000, -7.948617428855869],
      [12, 400, 40, 400, 1.3552177383602952],
    ] as const;
    for (const [hits, n, otherHits, otherN, logE] of golden) {
      const [a, b] = [
        { n, hits },
        { n: otherN, hits: otherHits },
      ];
      expect(logShareDifference(a, b)).toBeCloseTo(logE, 9);
      expect(logShareDifference(b, a)).toBeCloseTo(logE, 9);
    }
  });

  it('seldom reaches 20 where the shares are equal, however often it is looked at', () => {
    const random = createRandom(7);
    let alarms = 0;
    for (let run = 0; run < 300; run += 1) {
      const [treated, control] = [
        { n: 0, hits: 0 },
        { n: 0, hits: 0 },
      ];
      let isAlarm = false;
      for (let device = 0; device < 300 && !isAlarm; device += 1) {
        const arm = random() < 0.2 ? treated : control;
        arm.n += 1;
        arm.hits += random() < 0.3 ? 1 : 0;
        isAlarm = logShareDifference(treated, control) >= Math.log(20);
      }
      if (isAlarm) alarms += 1;
    }
    expect(alarms).toBeLessThan(0.05 * 300);
  });
});
