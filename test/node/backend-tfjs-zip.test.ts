/** Archives of TensorFlow.js models, and what is wrong with them. */
import * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import { zipSync } from 'fflate';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { isZip, listZip } from '../../src/backends/tfjs-zip.ts';
import { tfjs } from '../../src/backends/tfjs.ts';
import type { Backend } from '../../src/core/backend.ts';
import { isInlayError } from '../../src/core/errors.ts';
import { errorOf } from '../conformance/backend.ts';
import { tfPerceptronParts, toZip } from '../conformance/backend-models-tfjs.ts';

let backend: Backend;
beforeAll(() => {
  backend = tfjs({ tf });
});
afterAll(() => backend.close());
const open = (bytes: Uint8Array): Promise<unknown> => backend.createSession({ bytes }, { provider: 'cpu' });

describe('an archive', () => {
  const { json, shards } = tfPerceptronParts();
  const archive = toZip(json, shards, 6);
  const patched = (edit: (view: DataView, central: number) => void): Uint8Array => {
    const copy = archive.slice();
    const view = new DataView(copy.buffer);
    let central = 0;
    while (view.getUint32(central, true) !== 0x02_01_4b_50) central += 1;
    edit(view, central);
    return copy;
  };

  it.each<[string, Uint8Array, RegExp]>([
    ['with a byte after its end', Uint8Array.of(...archive, 0), /end of the archive/],
    [
      'whose directory is elsewhere',
      patched((view) => view.setUint32(view.byteLength - 6, 1, true)),
      /directory/,
    ],
    ['that is encrypted', patched((view, at) => view.setUint16(at + 8, 1, true)), /encrypted/],
    ['of another compression', patched((view, at) => view.setUint16(at + 10, 12, true)), /method 12/],
    ['in the ZIP64 format', patched((view, at) => view.setUint32(at + 24, 0xff_ff_ff_ff, true)), /ZIP64/],
    ['with another checksum', patched((view, at) => view.setUint32(at + 16, 1, true)), /checksum/],
    ['whose file is elsewhere', patched((view, at) => view.setUint32(at + 42, 5, true)), /not where/],
    [
      'whose file is longer than it',
      patched((view, at) => view.setUint32(at + 20, 2 ** 31, true)),
      /truncated/,
    ],
    [
      'whose model.json claims to be huge',
      patched((view, at) => view.setUint32(at + 24, 2 ** 31, true)),
      /larger than/,
    ],
    [
      'whose model.json lies about its size',
      patched((view, at) => view.setUint32(at + 24, 2 ** 25, true)),
      /does not have/,
    ],
    ['without model.json', zipSync({ 'readme.txt': new Uint8Array(1) }), /no model\.json/],
  ])('%s is refused', async (_, bytes, reason) => {
    const error = await errorOf(open(bytes));
    expect(error).toMatchObject({ name: 'ModelError', code: 'ERR_INLAY_MODEL_INVALID' });
    expect(String(error)).toMatch(reason);
  });

  it('that would unpack to more than is described is not unpacked', async () => {
    const bomb = zipSync({ 'w.bin': new Uint8Array(2 ** 26) }, { level: 9 });
    const entry = listZip(bomb).get('w.bin');
    expect(bomb.length).toBeLessThan(2 ** 17);
    // Whoever believes the directory is told so before; whoever changes it meets the end of what it says.
    const view = new DataView(bomb.buffer);
    let central = 0;
    while (view.getUint32(central, true) !== 0x02_01_4b_50) central += 1;
    view.setUint32(central + 24, 1000, true);
    const lying = listZip(bomb).get('w.bin');
    expect(entry?.sizeBytes).toBe(2 ** 26);
    expect(String(await errorOf(lying?.read() as Promise<unknown>))).toContain(
      'does not have its 1000 bytes',
    );
  });

  it('that another program has packed is read', async () => {
    const packed = zipSync(
      {
        'a/b.txt': [new TextEncoder().encode('text'.repeat(1000)), { level: 9, comment: 'note' }],
        'c.bin': new Uint8Array([1, 2]),
      },
      { comment: 'all' },
    );
    const entries = listZip(packed);
    expect([...entries.keys()]).toEqual(['a/b.txt', 'c.bin']);
    expect(new TextDecoder().decode(await entries.get('a/b.txt')?.read())).toBe('text'.repeat(1000));
    expect(await entries.get('c.bin')?.read()).toEqual(new Uint8Array([1, 2]));
  });

  it('gives back what was packed, or refuses, whatever happens to it', async () => {
    const original = new Map<string, Uint8Array>();
    for (const [name, entry] of listZip(archive)) original.set(name, await entry.read());
    const damage = fc.oneof(
      fc.tuple(fc.constant('flip'), fc.nat(archive.length - 1), fc.integer({ min: 1, max: 255 })),
      fc.tuple(fc.constant('cut'), fc.nat(archive.length), fc.constant(0)),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(damage, { minLength: 1, maxLength: 4 }), async (damages) => {
        let bytes = archive.slice();
        for (const [kind, at, value] of damages) {
          if (kind === 'cut') bytes = bytes.slice(0, at);
          else if (at < bytes.length) bytes[at] = (bytes[at] as number) ^ value;
        }
        try {
          isZip(bytes);
          for (const [name, entry] of listZip(bytes)) {
            const read = await entry.read();
            // A name may be damaged; content may not.
            if (original.has(name)) expect(read).toEqual(original.get(name));
          }
        } catch (error) {
          expect(error instanceof RangeError || error instanceof TypeError || isZlibError(error)).toBe(true);
        }
      }),
      { numRuns: 300 },
    );
  });

  it('is a model or a typed error, whatever happens to it', async () => {
    const before = tf.memory().numTensors;
    await fc.assert(
      fc.asyncProperty(fc.nat(archive.length - 1), fc.integer({ min: 1, max: 255 }), async (at, value) => {
        const bytes = archive.slice();
        bytes[at] = (bytes[at] as number) ^ value;
        const session = await backend
          .createSession({ bytes }, { provider: 'cpu' })
          .catch((error: unknown) => {
            expect(isInlayError(error) && error.name).toBe('ModelError');
            return undefined;
          });
        await session?.release();
      }),
      { numRuns: 100 },
    );
    expect(tf.memory().numTensors).toBe(before);
  });
});

function isZlibError(error: unknown): boolean {
  return error instanceof Error && String((error as { code?: unknown }).code).startsWith('Z_');
}
