import { describe, expect, it } from 'vitest';
import { toHex } from '../../src/core/bytes.ts';
import { createPace, digestHex, updateInTurns } from '../../src/core/digest.ts';
import { createSha256, type Hasher } from '../../src/core/hash.ts';
import type { Blob } from '../../src/core/store.ts';
import type { Platform } from '../../src/core/platform.ts';
import { createMemoryStore } from '../../src/stores/memory.ts';
import { sha256Hex } from '../../src/trust/keys.ts';
import { intactBlob } from '../../src/update/intact.ts';
import { testPlatform, until, type TestPlatform } from './platform.ts';

const bytes = Uint8Array.from({ length: 3 * 2 ** 18 + 17 }, (_, i) => (i * 31) % 253);
const sha256 = sha256Hex(testPlatform(), bytes);

/** A platform on which hashing a KiB takes so long; it keeps the longest time without a timer. */
function slowPlatform(perKiBMs: number): TestPlatform & { readonly longest: () => number } {
  const platform = testPlatform();
  let since = 0;
  let longestMs = 0;
  const createSlow = (): Hasher => {
    const hash = createSha256();
    return {
      ...hash,
      update: (piece) => {
        hash.update(piece);
        platform.advance((piece.length / 1024) * perKiBMs);
        longestMs = Math.max(longestMs, platform.monotonicMs() - since);
      },
    };
  };
  return {
    ...platform,
    createSha256: createSlow,
    setTimer: (task, delayMs, keepAlive) => {
      expect(keepAlive).toBe(true);
      return platform.setTimer(
        () => {
          since = platform.monotonicMs();
          task();
        },
        delayMs,
        keepAlive,
      );
    },
    longest: () => longestMs,
  };
}

/** Lets the timers fall due until something has settled. */
async function play<T>(platform: TestPlatform, task: Promise<T>): Promise<T> {
  let isOver = false;
  const over = (): void => {
    isOver = true;
  };
  task.then(over, over);
  await until(() => {
    platform.advance(0);
    return isOver;
  });
  return task;
}

describe('digestHex', () => {
  it.each([
    ['a page', 0.018],
    ['Hermes', 0.5],
  ])('hashes as long as others do not wait for more than 4 ms in %s', async (_, perKiBMs) => {
    const platform = slowPlatform(perKiBMs);
    expect(await play(platform, digestHex(platform, bytes))).toBe(sha256);
    expect(platform.longest()).toBeGreaterThan(0);
    expect(platform.longest()).toBeLessThanOrEqual(4);
  });

  it('takes what is native', async () => {
    const asked: Uint8Array[] = [];
    const platform: Platform = {
      ...testPlatform(),
      createSha256: () => {
        throw new Error('It hashes in JavaScript.');
      },
      digest: async (all) => {
        asked.push(all);
        return new Uint8Array(32).fill(0xab);
      },
    };
    expect(await digestHex(platform, bytes)).toBe('ab'.repeat(32));
    expect(asked).toEqual([bytes]);
  });

  it('hashes nothing, too', async () => {
    const none = new Uint8Array();
    expect(await digestHex(testPlatform(), none)).toBe(sha256Hex(testPlatform(), none));
  });
});

describe('updateInTurns', () => {
  it('pauses only when work has gone on for a while', async () => {
    let now = 0;
    let pauses = 0;
    const pause = async (): Promise<void> => {
      pauses += 1;
    };
    const pace = createPace(() => now, pause);
    const fast: Hasher = { update: () => {}, digest: () => new Uint8Array(32) };
    await updateInTurns(fast, bytes, pace);
    expect(pauses).toBe(0);
    now = 10;
    await pace();
    await pace();
    expect(pauses).toBe(1);
  });

  it('hashes longer stretches where that is fast, and all bytes in order', async () => {
    const hash = createSha256();
    const stretches: number[] = [];
    const update = (piece: Uint8Array): void => {
      stretches.push(piece.length);
      hash.update(piece);
    };
    await updateInTurns(
      { ...hash, update },
      bytes,
      createPace(
        () => 0,
        async () => {},
      ),
    );
    expect(toHex(hash.digest())).toBe(sha256);
    expect(stretches.length).toBeLessThan(10);
    expect(stretches[0]).toBeLessThanOrEqual(4096);
  });
});

/** A blob's content that tells how much of it was read at once. */
function piecesOf(content: Uint8Array, lengths: number[] = []): Pick<Blob, 'bytes' | 'read'> {
  return {
    bytes: async () => {
      lengths.push(content.length);
      return content.slice();
    },
    read: async (offset, length) => {
      lengths.push(length);
      return content.slice(offset, offset + length);
    },
  };
}

/** A platform whose hashes are native, whole and piece by piece. */
function nativePlatform(): Platform {
  return {
    ...testPlatform(),
    createSha256: () => createSha256(),
    digest: async (all) => {
      const hash = createSha256();
      hash.update(all);
      return hash.digest();
    },
  };
}

describe('a large blob that is hashed again', () => {
  const large = Uint8Array.from({ length: 3 * 2 ** 20 + 1 }, (_, i) => (i * 7) >> 5);
  const name = sha256Hex(testPlatform(), large);

  it.each([
    ['in pieces where those are hashed natively', nativePlatform(), 2 ** 20],
    ['in pieces where there is nothing native', testPlatform(), 2 ** 20],
    [
      'as a whole where pieces would be hashed in JavaScript',
      { ...nativePlatform(), createSha256 },
      large.length,
    ],
    [
      'as a whole where pieces turn out to be slow',
      (() => {
        const platform = testPlatform();
        const update = (): void => platform.advance(1);
        return {
          ...nativePlatform(),
          monotonicMs: platform.monotonicMs,
          createSha256: () => ({ ...createSha256(), update }),
        };
      })(),
      large.length,
    ],
  ])('is read %s', async (_, platform, mostBytes) => {
    const store = createMemoryStore();
    await store.putBlob(name, large);
    const lengths: number[] = [];
    const { blob } = store;
    store.blob = async (wanted) => {
      const kept = await blob(wanted);
      return kept && { ...kept, ...piecesOf(large, lengths) };
    };
    expect(await intactBlob(platform, store, { sha256: name, length: large.length })).toBeDefined();
    expect(Math.max(...lengths)).toBe(mostBytes);
    expect(lengths.reduce((sum, length) => sum + length)).toBe(large.length);
  });
});

describe.each<[string, () => TestPlatform | Platform]>([
  ['in JavaScript', () => slowPlatform(0)],
  [
    'natively',
    () => ({
      ...testPlatform(),
      digest: async (all) => {
        const hash = createSha256();
        hash.update(all);
        return hash.digest();
      },
    }),
  ],
])('a blob that is hashed again %s', (_, start) => {
  it('is given if it is as it was signed', async () => {
    const store = createMemoryStore();
    await store.putBlob(sha256, bytes);
    const blob = await intactBlob(start(), store, { sha256, length: bytes.length });
    expect(blob).toMatchObject({ sha256, sizeBytes: bytes.length });
  });

  it('is deleted if it is not', async () => {
    const store = createMemoryStore();
    const spoilt = bytes.slice();
    spoilt[spoilt.length - 1] = 0xff;
    await store.putBlob(sha256, bytes);
    const { blob } = store;
    store.blob = async (name) => {
      const kept = await blob(name);
      return kept && { ...kept, ...piecesOf(spoilt) };
    };
    expect(await intactBlob(start(), store, { sha256, length: bytes.length })).toBeUndefined();
    expect(await blob(sha256)).toBeUndefined();
  });

  it('is deleted if it has another length', async () => {
    const store = createMemoryStore();
    await store.putBlob(sha256, bytes);
    expect(await intactBlob(start(), store, { sha256, length: bytes.length - 1 })).toBeUndefined();
    expect(await store.blob(sha256)).toBeUndefined();
  });
});
