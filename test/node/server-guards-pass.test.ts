import { describe, expect, it } from 'vitest';
import { DEFAULT_GUARD, DEFAULT_STAGES, harmlessRate, isProven } from '../../src/server/guards/defaults.ts';
import { newStage, takeLook, type LookInputs } from '../../src/server/guards/look.ts';
import { isRipe, type Device } from '../../src/server/guards/verdicts.ts';
import { NO_COUNTS, type Counts } from '../../src/stats/e-process.ts';

const hourMs = 3_600_000;
const periodMs = 900_000;
const [limits = { bp: 100, soakS: 3600, maxS: 86_400 }] = DEFAULT_STAGES.canary;

const decisionOf = (errors: Counts, change: Partial<LookInputs> = {}): { kind: string; by: string } => {
  const sound = { treated: 940, treatedBad: 5, control: 8460, controlBad: 45 };
  const { look } = takeLook(newStage(), {
    at: 2 * hourMs,
    stageAt: 0,
    rules: {
      ...{ strategy: 'canary', stage: 0, stages: 4, options: DEFAULT_GUARD, limits },
      ...{ inconclusive: 'hold', soakOnly: false },
    },
    judged: { errors: { '': errors }, latency: { '': sound }, silence: { '': sound } },
    any: sound,
    devices: { treated: 1000, control: 9000 },
    fatal: { treated: 0, control: 0 },
    rejected: { treated: 0, control: 0 },
    hasCalls: true,
    ...change,
  });
  return look.decision;
};
const errorsOf = (treatedBad: number): Counts => ({
  treated: 940,
  treatedBad,
  control: 8460,
  controlBad: 100,
});

describe('a stage of a thousand devices', () => {
  it('passes a release on which as many devices are bad as in the control, about one in a hundred', () => {
    for (const bad of [6, 11, 15]) {
      expect(decisionOf(errorsOf(bad)), `${bad}`).toMatchObject({ kind: 'pass', by: 'evidence' });
    }
  });

  it('passes nothing that makes five devices in a hundred bad', () => {
    expect(decisionOf(errorsOf(47))).toMatchObject({ kind: 'fail', by: 'errors' });
    expect(decisionOf({ ...errorsOf(47), control: 8, controlBad: 1 }).kind).not.toBe('pass');
  });

  it('waits while the evidence that it is worse is half of what would end it', () => {
    expect(isProven({ fail: 2, pass: 3 }, 5.5)).toBe(true);
    expect(isProven({ fail: 2.8, pass: 9 }, 5.5)).toBe(false);
    expect(isProven({ fail: 0, pass: 2.9 }, 5.5)).toBe(false);
  });

  it('takes less for harmless where the margin is smaller', () => {
    expect(harmlessRate(DEFAULT_GUARD)).toBe(0.04);
    expect(harmlessRate({ ...DEFAULT_GUARD, marginRatio: 1.5 })).toBeCloseTo(0.03);
  });
});

describe('devices that give the candidate up', () => {
  const began = { devices: { treated: 137, control: 900 }, any: NO_COUNTS, judged: {} };

  it('end a stage before anybody is judged, if there are too many for what is good', () => {
    const rejected = { treated: 12, control: 0 };
    expect(decisionOf(NO_COUNTS, { ...began, rejected })).toMatchObject({ kind: 'fail', by: 'rejections' });
  });

  it('end none in numbers that happen', () => {
    const rejected = { treated: 5, control: 0 };
    expect(decisionOf(NO_COUNTS, { ...began, rejected })).toMatchObject({ kind: 'wait' });
  });

  it('are not judged before those that began with them', () => {
    const device: Device = {
      ...{ dev: 'd', arm: 't', cls: 3, n: 8, errors: 3, fatals: 0, rejections: 1, gap: 0, verdicts: '' },
      ...{ base_n: 100, base_errors: 0, base_p95: 0, base_load: 0, base_mem: 0, mem: 0 },
      ...{
        hist: '',
        load: '',
        outputs: '',
        biz: '',
        first_at: hourMs,
        activated_at: hourMs,
        last_at: hourMs,
      },
    };
    const now = hourMs + 3 * periodMs;
    expect(isRipe(device, 50, now, hourMs - 1)).toBe(false);
    expect(isRipe(device, 50, now, hourMs)).toBe(true);
    expect(isRipe({ ...device, n: 50 }, 50, now, -Infinity)).toBe(true);
  });
});
