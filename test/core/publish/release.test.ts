import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  addRelease,
  createRoot,
  createTargets,
  expiresIn,
  listReleases,
} from '../../../src/publish/release.ts';
import { signMetadata } from '../../../src/publish/sign.ts';
import type { NamedKey } from '../../../src/trust/keys.ts';
import { parseEnvelope } from '../../../src/trust/parse.ts';

const key = (digit: string): NamedKey => ({
  keyid: digit.repeat(64),
  key: { keytype: 'ed25519', scheme: 'ed25519', keyval: { public: digit.repeat(64) } },
});
const expires = '2031-01-01T00:00:00Z';
const empty = createTargets({ onlineKey: key('a'), expires });
const release = {
  model: 'digits',
  version: '1.0.0',
  file: 'model.onnx',
  length: 3,
  sha256: '1'.repeat(64),
  expires,
};

describe('createRoot', () => {
  it('lists the online key for timestamp and snapshot only', () => {
    const root = createRoot({ rootKeys: [key('1')], targetsKeys: [key('2')], onlineKey: key('3'), expires });
    expect(root.version).toBe(1);
    expect(root.roles.timestamp).toEqual({ keyids: [key('3').keyid], threshold: 1 });
    expect(root.roles.snapshot).toEqual(root.roles.timestamp);
    expect(root.roles.root.keyids).toEqual([key('1').keyid]);
    expect(root.roles.targets.keyids).toEqual([key('2').keyid]);
  });

  it.each([
    [1, 1],
    [2, 2],
    [3, 2],
    [5, 3],
  ])('asks for more than half of %i root keys', (count, threshold) => {
    const rootKeys = Array.from({ length: count }, (_, i) => key(String(i)));
    const root = createRoot({ rootKeys, targetsKeys: [key('a')], onlineKey: key('b'), expires });
    expect(root.roles.root.threshold).toBe(threshold);
  });

  it('refuses a threshold that cannot be met', () => {
    const options = { targetsKeys: [key('a')], onlineKey: key('b'), expires };
    expect(() => createRoot({ ...options, rootKeys: [key('1'), key('1')], rootThreshold: 2 })).toThrow(
      RangeError,
    );
    expect(() => createRoot({ ...options, rootKeys: [] })).toThrow(RangeError);
  });
});

describe('addRelease', () => {
  it('numbers the releases of each model from 1', () => {
    const first = addRelease(empty, release);
    const second = addRelease(first.targets, { ...release, version: '1.1.0', sha256: '2'.repeat(64) });
    const other = addRelease(second.targets, { ...release, model: 'faces' });
    expect([first, second, other].map(({ seq, path }) => [seq, path])).toEqual([
      [1, 'models/digits/1/model.onnx'],
      [2, 'models/digits/2/model.onnx'],
      [1, 'models/faces/1/model.onnx'],
    ]);
    expect(other.targets.version).toBe(4);
    expect(listReleases(other.targets).map(({ model, version }) => `${model}@${version}`)).toEqual([
      'digits@1.0.0',
      'digits@1.1.0',
      'faces@1.0.0',
    ]);
    expect(empty.targets).toEqual({});
  });

  it('changes nothing for the same version with the same content', () => {
    const first = addRelease(empty, release);
    expect(addRelease(first.targets, release)).toEqual(first);
  });

  it('refuses other content for the same version', () => {
    const { targets } = addRelease(empty, release);
    expect(() => addRelease(targets, { ...release, sha256: '2'.repeat(64) })).toThrow(
      expect.objectContaining({ code: 'ERR_INLAY_CONFLICT' }),
    );
  });

  it('keeps more facts beside its own, which they cannot replace', () => {
    const { targets, path } = addRelease(empty, { ...release, custom: { opset: 17, seq: 99, model: 'x' } });
    expect(targets.targets[path]?.custom).toEqual({ opset: 17, model: 'digits', version: '1.0.0', seq: 1 });
  });

  it.each([
    [{ model: 'Digits' }],
    [{ model: '' }],
    [{ model: '../x' }],
    [{ model: 'a/b' }],
    [{ file: 'dir/model.onnx' }],
    [{ file: '.hidden' }],
    [{ version: '' }],
    [{ version: '1 0' }],
    [{ version: '1\n' }],
  ])('refuses %j', (change) => {
    expect(() => addRelease(empty, { ...release, ...change })).toThrow(
      expect.objectContaining({ code: 'ERR_INLAY_REFUSED' }),
    );
  });

  it('gives every distinct release its own number, whatever the order', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.constantFrom('a', 'b'), fc.integer({ min: 1, max: 6 })), { maxLength: 12 }),
        async (steps) => {
          let targets = empty;
          for (const [model, n] of steps) {
            const sha256 = n.toString(16).repeat(64);
            targets = addRelease(targets, { ...release, model, version: `v${n}`, sha256 }).targets;
          }
          for (const model of ['a', 'b']) {
            const seqs = listReleases(targets).flatMap((entry) => (entry.model === model ? [entry.seq] : []));
            expect(seqs.sort((x, y) => x - y)).toEqual(seqs.map((_, i) => i + 1));
          }
          // What is published can be parsed.
          expect(parseEnvelope(await signMetadata(targets, []), 'targets').signed).toEqual(targets);
        },
      ),
      { numRuns: 50 },
    );
  });
});

describe('expiresIn', () => {
  it('counts days and drops milliseconds', () => {
    expect(expiresIn(Date.UTC(2030, 11, 31, 23, 59, 59, 999), 1.5)).toBe('2031-01-02T11:59:59Z');
  });
});
