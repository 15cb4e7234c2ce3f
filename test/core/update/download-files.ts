/** Files as a good server has them, in memory, with ranges; and what tests of downloads share. */
import { toHex } from '../../../src/core/bytes.ts';
import { createSha256 } from '../../../src/core/hash.ts';
import type { Platform } from '../../../src/core/platform.ts';
import type { Chunks } from '../../../src/update/chunks.ts';
import type { FileRef } from '../../../src/update/manifest.ts';

/** Lower-case hex. */
function sha256Of(bytes: Uint8Array): string {
  const hash = createSha256();
  hash.update(bytes);
  return toHex(hash.digest());
}

/** Bytes that no two places have in common. */
export function randomBytes(length: number, seed = 1): Uint8Array<ArrayBuffer> {
  let state = seed;
  return Uint8Array.from({ length }, () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state >>> 24;
  });
}

/** Names a file as signed metadata does. */
export function refOf(bytes: Uint8Array, file = 'model.onnx'): FileRef {
  return { path: `models/digits/1/${file}`, sha256: sha256Of(bytes), length: bytes.length };
}

/** Hashes the pieces of a file. */
export function chunksOf(bytes: Uint8Array, size: number): Required<Chunks> {
  let sha256 = '';
  for (let at = 0; at < bytes.length; at += size) sha256 += sha256Of(bytes.subarray(at, at + size));
  return { size, sha256 };
}

/** Files by their hash, and what was asked for. */
export interface FileServer {
  readonly fetch: Platform['fetch'];
  readonly requests: { readonly sha256: string; readonly range: string | undefined }[];
  add(bytes: Uint8Array): void;
  remove(sha256: string): void;
  /** Makes requests hang after so many bytes of their body. */
  stallAfter(bytes: number): void;
}

/** Creates a server of files. Bodies come in pieces of 1000 bytes. */
export function serveFiles(...contents: Uint8Array[]): FileServer {
  const files = new Map(contents.map((bytes) => [sha256Of(bytes), bytes]));
  let stallBytes = Infinity;
  const requests: FileServer['requests'] = [];
  return {
    requests,
    add: (bytes) => void files.set(sha256Of(bytes), bytes),
    remove: (sha256) => void files.delete(sha256),
    stallAfter: (bytes) => {
      stallBytes = bytes;
    },
    fetch: async (url, init) => {
      const sha256 = /([0-9a-f]{64})\.[^/]+$/.exec(url)?.[1] ?? '';
      const range = new Headers(init?.headers).get('range') ?? undefined;
      requests.push({ sha256, range });
      const bytes = files.get(sha256);
      if (bytes === undefined) return new Response(null, { status: 404 });
      const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(range ?? '') ?? [];
      const from = Number(first ?? 0);
      const to = first === undefined ? bytes.length : Number(last) + 1;
      let at = from;
      const stall = from + stallBytes;
      const body = new ReadableStream<Uint8Array>(
        {
          pull: (controller) => {
            const piece = bytes.slice(at, Math.min(at + 1000, to, stall));
            at += piece.length;
            if (piece.length > 0) controller.enqueue(piece);
            else if (at === to) controller.close();
            else return new Promise(() => {});
            return undefined;
          },
        },
        { highWaterMark: 0 },
      );
      return new Response(body, {
        status: first === undefined ? 200 : 206,
        headers: {
          etag: `"${sha256}"`,
          'content-length': String(to - from),
          ...(first !== undefined && { 'content-range': `bytes ${from}-${to - 1}/${bytes.length}` }),
        },
      });
    },
  };
}
