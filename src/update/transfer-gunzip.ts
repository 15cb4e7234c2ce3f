import type { Blob } from '../core/store.ts';

/** What goes in at a time, bytes: gzip makes at most a thousand times as much of it. */
const PIECE_BYTES = 16_384;

/** Tells whether this runtime can decompress; React Native cannot. */
export function hasGunzip(): boolean {
  return typeof DecompressionStream === 'function';
}

/** Decompresses gzip (RFC 1952), as fast as what comes out is taken. It fails at the first malformed byte. */
export function gunzip(blob: Blob): AsyncIterable<Uint8Array> {
  const { readable, writable } = new DecompressionStream('gzip');
  const writer = writable.getWriter();
  const reader = readable.getReader();
  const feed = async (): Promise<void> => {
    for (let at = 0; at < blob.sizeBytes; at += PIECE_BYTES) {
      await writer.write(await blob.read(at, Math.min(PIECE_BYTES, blob.sizeBytes - at)));
    }
    await writer.close();
  };
  // The reader fails of the same.
  feed().catch((error: unknown) => writer.abort(error).catch(() => {}));
  return {
    [Symbol.asyncIterator]: () => ({
      next: async () => {
        const { done, value } = await reader.read();
        return done ? { done, value: undefined } : { done, value };
      },
      return: async () => {
        await reader.cancel().catch(() => {});
        return { done: true, value: undefined };
      },
    }),
  };
}
