import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { concatBytes, toUtf8 } from '../../../src/core/bytes.ts';
import {
  isSealed,
  parseStoredKey,
  sealKeyFile,
  unsealKeyFile,
  type SealedKeyFile,
  type SealParts,
} from '../../../src/publish/seal.ts';
import { generateKeyPair, toKeyFile, type KeyFile } from '../../../src/publish/signer.ts';
import { testPlatform } from '../platform.ts';

const { subtle } = globalThis.crypto;
const costs: unknown[] = [];
/** A quick stand-in that depends on everything that scrypt depends on. */
const parts: SealParts = {
  subtle,
  platform: testPlatform(),
  scrypt: async (passphrase, salt, { n, r, p }, length) => {
    costs.push({ n, r, p });
    const input = concatBytes([passphrase, toUtf8(`\u0000${n},${r},${p}\u0000`), salt]);
    return new Uint8Array(await subtle.digest('SHA-256', input)).slice(0, length);
  },
};
let keyFile: KeyFile;
let sealed: SealedKeyFile;

beforeAll(async () => {
  keyFile = toKeyFile(await generateKeyPair(subtle));
  sealed = await sealKeyFile(parts, keyFile, 'a passphrase');
});

describe('a sealed key file', () => {
  it('gives the key back to whoever knows the passphrase', async () => {
    const read = parseStoredKey(JSON.stringify(sealed), 'x.json');
    if (!isSealed(read)) throw new Error('It is not sealed.');
    expect(await unsealKeyFile(parts, read, 'a passphrase', 'x.json')).toEqual(keyFile);
    expect(costs[0]).toEqual({ n: 131_072, r: 8, p: 1 });
    expect(JSON.stringify(sealed)).not.toContain(keyFile.private);
  });

  it('is another one each time', async () => {
    const again = await sealKeyFile(parts, keyFile, 'a passphrase');
    expect(again.sealed.salt).not.toBe(sealed.sealed.salt);
    expect(again.sealed.nonce).not.toBe(sealed.sealed.nonce);
    expect(again.sealed.data).not.toBe(sealed.sealed.data);
  });

  it('takes letters that keyboards write in two ways for one', async () => {
    const file = await sealKeyFile(parts, keyFile, 'caf\u00e9');
    expect(await unsealKeyFile(parts, file, 'cafe\u0301', 'x.json')).toEqual(keyFile);
  });

  it('stays shut for another passphrase, with an error that names neither', async () => {
    const error: unknown = await unsealKeyFile(parts, sealed, 'guess-17', 'x.json').catch(
      (reason: unknown) => reason,
    );
    expect(error).toMatchObject({
      name: 'ServerError',
      code: 'ERR_INLAY_UNAUTHORIZED',
      details: { path: 'x.json' },
    });
    expect(String(error)).not.toContain('guess-17');
    await expect(sealKeyFile(parts, keyFile, '')).rejects.toThrow(RangeError);
  });

  it('stays shut whatever bit of it is flipped', async () => {
    const text = JSON.stringify(sealed);
    await fc.assert(
      fc.asyncProperty(fc.nat(text.length - 1), fc.nat(6), async (at, bit) => {
        const flipped = String.fromCharCode(text.charCodeAt(at) ^ (1 << bit));
        const damaged = `${text.slice(0, at)}${flipped}${text.slice(at + 1)}`;
        let read: KeyFile | SealedKeyFile;
        try {
          read = parseStoredKey(damaged, 'x.json');
        } catch (error) {
          expect(error).toBeInstanceOf(TypeError);
          return;
        }
        // Without its field `sealed` it is a key file without a private key, which opening it refuses.
        if (!isSealed(read)) {
          expect(read.private).toBeUndefined();
          return;
        }
        await expect(unsealKeyFile(parts, read, 'a passphrase', 'x.json')).rejects.toMatchObject({
          code: 'ERR_INLAY_UNAUTHORIZED',
        });
      }),
      { numRuns: 2000 },
    );
  });

  it.each([
    ['asks for more memory than a machine has', { n: 2 ** 30 }],
    ['asks for no work', { n: 0 }],
    ['is of another version', { v: 2 }],
    ['names another cipher', { cipher: 'none' }],
    ['has a salt that is no hex', { salt: 'xyz' }],
    ['has no data', { data: '' }],
  ])('is damaged if it %s', (_, change) => {
    const file = { ...sealed, sealed: { ...sealed.sealed, ...change } };
    expect(() => parseStoredKey(JSON.stringify(file), 'x.json')).toThrow(/key file x\.json is damaged/);
  });
});
