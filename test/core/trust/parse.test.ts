import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { fromUtf8, toUtf8 } from '../../../src/core/bytes.ts';
import { TrustError } from '../../../src/core/errors.ts';
import type { TopRole } from '../../../src/trust/metadata.ts';
import { parseEnvelope, topRoles } from '../../../src/trust/parse.ts';
import { testPlatform } from '../platform.ts';
import { createRepository } from '../publish/repository.ts';

type Path = readonly (string | number)[];
type Change = (present: unknown) => unknown;

let texts: Record<TopRole, string>;

beforeAll(async () => {
  const repository = await createRepository(testPlatform());
  await repository.release('digits', '1.0.0', Uint8Array.of(1, 2, 3));
  const { roots, files } = repository;
  texts = {
    root: fromUtf8(roots[0] ?? new Uint8Array()),
    timestamp: fromUtf8(files.timestamp),
    snapshot: fromUtf8(files.snapshot),
    targets: fromUtf8(files.targets),
  };
});

/** Replaces the value at a path; `undefined` leaves it out. */
function replace(value: unknown, [step, ...rest]: Path, change: Change): unknown {
  if (step === undefined) return change(value);
  if (Array.isArray(value)) {
    return value.map((item: unknown, i) => (i === Number(step) ? replace(item, rest, change) : item));
  }
  const fields = typeof value === 'object' && value !== null ? value : {};
  return { ...fields, [step]: replace(Reflect.get(fields, step), rest, change) };
}

/** Parses intact metadata of a role after one change to it. */
const parseChanged = (role: TopRole, path: Path, change: Change): unknown =>
  parseEnvelope(toUtf8(JSON.stringify(replace(JSON.parse(texts[role]), path, change))), role);

const twice: Change = (list) => (Array.isArray(list) ? [...list, list[0]] : list);

describe('parseEnvelope', () => {
  it.each(topRoles)('reads intact %s metadata', (role) => {
    expect(parseEnvelope(toUtf8(texts[role]), role).signed).toEqual(
      Reflect.get(JSON.parse(texts[role]) as object, 'signed'),
    );
  });

  it('keeps fields that it does not know, since they are signed too', () => {
    const parsed = parseChanged('timestamp', ['signed', 'issued'], () => ({ by: ['x'] }));
    expect(parsed).toMatchObject({ signed: { issued: { by: ['x'] } } });
  });

  it('refuses metadata of another type', () => {
    expect(() => parseEnvelope(toUtf8(texts.snapshot), 'timestamp')).toThrow(/_type is not timestamp/);
  });

  const target = (fields: object): object => ({ length: 1, hashes: { sha256: 'ab'.repeat(32) }, ...fields });
  const delegation: Path = ['signed', 'delegations', 'roles', 0];
  const hashed = (role: object, prefixes: string[]): object => ({
    ...role,
    paths: undefined,
    path_hash_prefixes: prefixes,
  });
  const bins = (bits: number | undefined): object => ({
    keys: {},
    succinct_roles: { keyids: ['a'], threshold: 1, bit_length: bits, name_prefix: 'bin' },
  });
  const changes: [name: string, role: TopRole, path: Path, value: unknown][] = [
    ['no signatures', 'root', ['signatures'], undefined],
    ['a signature that is not hex', 'root', ['signatures', 0, 'sig'], 'zz'],
    ['a signature without a keyid', 'root', ['signatures', 0, 'keyid'], undefined],
    ['no signed part', 'root', ['signed'], undefined],
    ['version 0', 'root', ['signed', 'version'], 0],
    ['a version as text', 'root', ['signed', 'version'], '1'],
    ['spec_version 2', 'root', ['signed', 'spec_version'], '2.0.0'],
    ['an expiry in another form', 'root', ['signed', 'expires'], '2030-01-01'],
    ['an expiry that is no date', 'root', ['signed', 'expires'], '2030-13-01T00:00:00Z'],
    ['an expiry on 30 February', 'root', ['signed', 'expires'], '2030-02-30T00:00:00Z'],
    ['no consistent_snapshot', 'root', ['signed', 'consistent_snapshot'], undefined],
    ['no timestamp role', 'root', ['signed', 'roles', 'timestamp'], undefined],
    ['threshold 0', 'root', ['signed', 'roles', 'root', 'threshold'], 0],
    ['a keyid twice', 'root', ['signed', 'roles', 'root', 'keyids'], twice],
    [
      'a key without a public part',
      'root',
      ['signed', 'keys', 'x'],
      { keytype: 'a', scheme: 'b', keyval: {} },
    ],
    ['no snapshot', 'timestamp', ['signed', 'meta'], {}],
    ['a negative length', 'timestamp', ['signed', 'meta', 'snapshot.json', 'length'], -1],
    ['empty hashes', 'timestamp', ['signed', 'meta', 'snapshot.json', 'hashes'], {}],
    ['a short SHA-256', 'timestamp', ['signed', 'meta', 'snapshot.json', 'hashes', 'sha256'], 'ab'],
    ['no targets', 'snapshot', ['signed', 'meta', 'targets.json'], undefined],
    ['a file that is no .json', 'snapshot', ['signed', 'meta', 'other'], { version: 1 }],
    ['a target without hashes', 'targets', ['signed', 'targets', 'x'], target({ hashes: undefined })],
    ['a target without length', 'targets', ['signed', 'targets', 'x'], target({ length: undefined })],
    ['an absolute target path', 'targets', ['signed', 'targets', '/x'], target({})],
    ['custom that is a list', 'targets', ['signed', 'targets', 'x'], target({ custom: [] })],
    ['a role that is named like a top-level one', 'targets', [...delegation, 'name'], 'root'],
    ['a role twice', 'targets', ['signed', 'delegations', 'roles'], twice],
    ['a role without paths', 'targets', [...delegation, 'paths'], undefined],
    ['a role with paths and prefixes', 'targets', [...delegation, 'path_hash_prefixes'], ['ab']],
    ['a prefix that is no hex', 'targets', delegation, (role: object) => hashed(role, ['xy'])],
    ['an empty prefix', 'targets', delegation, (role: object) => hashed(role, [''])],
    [
      'delegations with roles and bins',
      'targets',
      ['signed', 'delegations', 'succinct_roles'],
      { keyids: [], threshold: 1, bit_length: 4, name_prefix: 'bin' },
    ],
    ...[0, 33, 1.5, undefined].map((bits): [string, TopRole, Path, unknown] => [
      `${bits} bits of bins`,
      'targets',
      ['signed', 'delegations'],
      () => bins(bits),
    ]),
    ['a role without terminating', 'targets', [...delegation, 'terminating'], undefined],
  ];
  it.each(changes)('refuses %s (%s)', (_, role, path, value) => {
    const change: Change = typeof value === 'function' ? (value as Change) : () => value;
    expect(() => parseChanged(role, path, change)).toThrow(
      expect.objectContaining({ code: 'ERR_INLAY_METADATA_INVALID' }),
    );
  });

  it('accepts what these changes start from', () => {
    expect(() => parseChanged('targets', ['signed', 'targets', 'x'], () => target({}))).not.toThrow();
    expect(() =>
      parseChanged('targets', delegation, (role) => hashed(role as object, ['ab', 'C'])),
    ).not.toThrow();
    expect(() => parseChanged('targets', ['signed', 'delegations'], () => bins(32))).not.toThrow();
  });

  it('throws nothing but TrustError for metadata in which any value was replaced', () => {
    const pathIn = (value: unknown, steps: readonly number[]): Path => {
      const [step, ...rest] = steps;
      if (step === undefined || typeof value !== 'object' || value === null) return [];
      const keys = Object.keys(value);
      const key = keys[step % keys.length];
      return key === undefined ? [] : [key, ...pathIn(Reflect.get(value, key), rest)];
    };
    fc.assert(
      fc.property(
        fc.constantFrom(...topRoles),
        fc.array(fc.nat(), { minLength: 1, maxLength: 6 }),
        fc.oneof(fc.jsonValue(), fc.constantFrom(0, -1, '', 'x', [], {}, null)),
        (role, steps, value) => {
          try {
            parseChanged(role, pathIn(JSON.parse(texts[role]), steps), () => value);
          } catch (error) {
            expect(error).toBeInstanceOf(TrustError);
          }
        },
      ),
      { numRuns: 1000 },
    );
  });

  it('throws nothing but TrustError for metadata in which a byte was changed', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...topRoles),
        fc.nat(),
        fc.integer({ min: 0, max: 255 }),
        (role, at, byte) => {
          const bytes = toUtf8(texts[role]);
          bytes[at % bytes.length] = byte;
          try {
            parseEnvelope(bytes, role);
          } catch (error) {
            expect(error).toBeInstanceOf(TrustError);
          }
        },
      ),
      { numRuns: 500 },
    );
  });
});
