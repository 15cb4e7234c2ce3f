import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { noSequence, noteNumber } from '../../src/server/ingest/sequence.ts';

/** The same, with a set that forgets nothing. */
function note(numbers: readonly number[]): { outcomes: string[]; lost: number } {
  const seen = new Set<number>();
  let hi = -1;
  const outcomes = numbers.map((seq) => {
    if (hi - seq >= 128) return 'too_old';
    const isKnown = seen.has(seq);
    seen.add(seq);
    hi = Math.max(hi, seq);
    return isKnown ? 'duplicate' : 'new';
  });
  const first = Math.max((numbers[0] ?? 0) - 127, 0);
  let lost = 0;
  for (let seq = first; seq <= hi - 128; seq += 1) if (!seen.has(seq)) lost += 1;
  return { outcomes, lost };
}

describe('the sequence of a sender', () => {
  it('takes each number once, in any order, and counts what never came', () => {
    const numbers = fc.array(fc.integer({ min: 0, max: 600 }), { minLength: 1, maxLength: 400 });
    const nearby = fc
      .array(fc.integer({ min: -130, max: 6 }), { minLength: 1, maxLength: 300 })
      .map((steps) => {
        let at = 0;
        return steps.map((step) => {
          const seq = Math.max(0, at + step);
          at = Math.max(at, seq) + 1;
          return seq;
        });
      });
    fc.assert(
      fc.property(fc.oneof(numbers, nearby), (list) => {
        let sequence = noSequence;
        const outcomes = list.map((seq) => {
          const noted = noteNumber(sequence, seq);
          sequence = noted.sequence;
          return noted.outcome;
        });
        expect({ outcomes, lost: sequence.lost }).toEqual(note(list));
        expect(sequence.seen).toMatch(/^[0-9a-f]{32}$/);
      }),
      { numRuns: 300 },
    );
  });

  it('does not call what it may have forgotten lost', () => {
    expect(noteNumber(noSequence, 5_000).sequence).toMatchObject({ hi: 5_000, lost: 0 });
  });

  it('lets one forged number look like a small loss only', () => {
    const { sequence } = noteNumber(noteNumber(noSequence, 3).sequence, Number.MAX_SAFE_INTEGER);
    expect(sequence.lost).toBe(1024);
    expect(noteNumber(sequence, 4).outcome).toBe('too_old');
  });
});
