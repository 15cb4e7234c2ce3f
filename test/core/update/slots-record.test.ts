import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { fromUtf8, toUtf8 } from '../../../src/core/bytes.ts';
import { decodeSlots, encodeSlots } from '../../../src/update/slots-record.ts';
import { rejectReasons, slotNames, type Slot, type SlotsState } from '../../../src/update/slot.ts';
import { rules } from './slots-fixture.ts';

const size = fc.nat();
const hash = fc.stringMatching(/^[0-9a-f]{64}$/);
const text = fc.string({ unit: 'grapheme' });
const optional = <Shape extends object>(shape: { [Key in keyof Shape]: fc.Arbitrary<Shape[Key]> }) =>
  fc.record(shape, { requiredKeys: [] });

const release = fc.record({ path: text, sha256: hash, length: size, seq: size, version: text });
const golden = fc.record({
  path: text,
  sha256: hash,
  length: size,
  tolerance: fc.record({ absoluteE6: size, relativeE6: size }),
});
const slot: fc.Arbitrary<Slot> = fc.record(
  { release, file: fc.record({ sha256: hash, length: size }), variant: text, golden },
  { requiredKeys: ['release', 'file'] },
);
const trial = fc
  .tuple(slot, fc.record({ plan: text, retryNonce: size, inferences: size, errors: size }), fc.option(size))
  .map(([held, facts, since]) => ({
    ...held,
    ...facts,
    rules,
    ...(since === null ? { phase: 'staged' as const } : { phase: 'active' as const, since }),
  }));
const state: fc.Arbitrary<SlotsState> = fc.record(
  {
    embedded: slot,
    committed: slot,
    previous: slot,
    trial,
    rejected: fc.array(
      fc.record({
        sha256: hash,
        version: text,
        seq: size,
        reason: fc.constantFrom(...rejectReasons),
        detail: text,
        at: size,
        count: size,
        until: fc.option(size),
        retryNonce: size,
        sdk: text,
      }),
      { maxLength: 3 },
    ),
    markers: fc.array(
      fc.record({
        id: text,
        run: text,
        sha256: hash,
        slot: fc.constantFrom(...slotNames),
        phase: fc.constantFrom('loading' as const, 'running' as const),
        at: size,
      }),
      { maxLength: 3 },
    ),
    strikes: fc.dictionary(hash, size, { noNullPrototype: true }),
    plan: fc.record({ id: text, bp: size, salt: text, cand: hash, isIn: fc.boolean(), verifiedAt: size }),
    policy: optional<{ floorSeq: number; revoked: number[] }>({ floorSeq: size, revoked: fc.array(size) }),
  },
  { requiredKeys: ['rejected', 'markers', 'strikes'] },
);

describe('the record of slots', () => {
  it('reads back what was written', () => {
    fc.assert(
      fc.property(state, (written) => {
        expect(decodeSlots(encodeSlots(written))).toEqual(written);
      }),
    );
  });

  it('is damaged when it is cut off anywhere', () => {
    fc.assert(
      fc.property(state, fc.nat(), (written, at) => {
        const bytes = encodeSlots(written);
        expect(decodeSlots(bytes.subarray(0, at % bytes.length))).toBeUndefined();
      }),
    );
  });

  it('is never read as something of another form when bits have flipped', () => {
    fc.assert(
      fc.property(state, fc.nat(), fc.nat(7), (written, at, bit) => {
        const bytes = encodeSlots(written);
        bytes[at % bytes.length] = (bytes[at % bytes.length] as number) ^ (1 << bit);
        const read = decodeSlots(bytes);
        // Stores find this out by a hash of their own; what is left is that nothing malformed comes through.
        if (read !== undefined) expect(decodeSlots(encodeSlots(read))).toEqual(read);
      }),
    );
  });

  it('takes nothing that is missing a field, or has one of another kind', () => {
    const whole = (): Record<string, unknown> => {
      const held = {
        release: { path: 'p', sha256: 'a'.repeat(64), length: 1, seq: 1, version: '1' },
        file: { sha256: 'a'.repeat(64), length: 1 },
      };
      const full = {
        committed: held,
        trial: { ...held, plan: 'r', rules, retryNonce: 0, phase: 'staged', inferences: 0, errors: 0 },
        rejected: [
          {
            sha256: 'a'.repeat(64),
            version: '1',
            seq: 1,
            reason: 'open',
            detail: '',
            at: 1,
            count: 1,
            until: null,
            retryNonce: 0,
            sdk: '1',
          },
        ],
        markers: [{ id: 'i', run: 'r', sha256: 'a'.repeat(64), slot: 'trial', phase: 'loading', at: 1 }],
        strikes: { ['a'.repeat(64)]: 1 },
        plan: { id: 'r', bp: 1, salt: 's', cand: 'a'.repeat(64), isIn: true, verifiedAt: 1 },
        policy: { floorSeq: 1, revoked: [1] },
      };
      return JSON.parse(JSON.stringify({ v: 1, ...full })) as Record<string, unknown>;
    };
    expect(decodeSlots(toUtf8(JSON.stringify(whole())))).toBeDefined();
    const paths: string[][] = [];
    const walk = (value: unknown, path: string[]): void => {
      if (path.length > 0) paths.push(path);
      if (typeof value === 'object' && value !== null)
        for (const [key, item] of Object.entries(value)) walk(item, [...path, key]);
    };
    walk(whole(), []);
    expect(paths.length).toBeGreaterThan(60);
    for (const path of paths) {
      for (const wrong of [-1, 1.5, {}, { x: 1 }, [true], 'x']) {
        const record = whole();
        const last = path.at(-1) as string;
        const parent = path.slice(0, -1).reduce((at, key) => at[key] as Record<string, unknown>, record);
        if (JSON.stringify(parent[last]) === JSON.stringify(wrong)) continue;
        parent[last] = wrong;
        const read = decodeSlots(toUtf8(JSON.stringify(record)));
        const isText = typeof wrong === 'string';
        const isFree = ['path', 'version', 'variant', 'plan', 'detail', 'sdk', 'id', 'run', 'salt'].includes(
          last,
        );
        const isEmptyTable = (last === 'policy' || last === 'strikes') && JSON.stringify(wrong) === '{}';
        const isUnknownField = last === 'policy' && JSON.stringify(wrong) === '{"x":1}';
        if (!(isText && isFree) && !isEmptyTable && !isUnknownField)
          expect(read, `${path.join('.')} = ${JSON.stringify(wrong)}`).toBeUndefined();
      }
    }
  });

  it('is not read when it is of another version, or no table at all', () => {
    for (const content of ['', '[]', 'null', '1', '{}', '{"v":2,"rejected":[],"markers":[],"strikes":{}}'])
      expect(decodeSlots(toUtf8(content))).toBeUndefined();
    expect(fromUtf8(encodeSlots({ rejected: [], markers: [], strikes: {} }))).toContain('"v":1');
  });
});
