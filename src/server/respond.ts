/** Answers with validators: strong entity tags, 304, compression and single ranges (RFC 9110, RFC 9111). */

import { createHash } from 'node:crypto';
import { promisify } from 'node:util';
import { gzip as gzipCallback } from 'node:zlib';
import type { Context } from 'hono';
import type { ContentfulStatusCode } from 'hono/utils/http-status';
import { toUtf8 } from '../core/bytes.ts';
import type { BlobStorage } from './storage/blobs.ts';

const gzip = promisify(gzipCallback);

/** `Cache-Control` of what never changes. */
export const immutable = 'public, max-age=31536000, immutable';
/** `Cache-Control` of what is asked for again each time. */
export const revalidated = 'no-cache';

/** A text in the two encodings in which it is sent. */
export interface Representation {
  readonly plain: Uint8Array<ArrayBuffer>;
  readonly gzip: Uint8Array<ArrayBuffer>;
  /** Entity tag of `plain`, without quotes. Each encoding has a tag of its own (RFC 9110 §8.8.3.3). */
  readonly tag: string;
}

/** Encodes a text for sending. */
export async function represent(text: string): Promise<Representation> {
  const plain = toUtf8(text);
  const tag = createHash('sha256').update(plain).digest('base64url').slice(0, 16);
  return { plain, gzip: new Uint8Array(await gzip(plain)), tag };
}

/** Sends JSON text, compressed if the client takes that. */
export function sendText(
  c: Context,
  { plain, gzip: zipped, tag }: Representation,
  cacheControl: string,
): Response {
  const compress = acceptsGzip(c.req.header('accept-encoding')) && zipped.length < plain.length;
  const etag = compress ? `"${tag}-gz"` : `"${tag}"`;
  c.header('ETag', etag);
  c.header('Cache-Control', cacheControl);
  c.header('Vary', 'Accept-Encoding');
  if (matchesTag(c.req.header('if-none-match'), etag)) return c.body(null, 304);
  c.header('Access-Control-Expose-Headers', 'ETag');
  c.header('Content-Type', 'application/json');
  if (compress) c.header('Content-Encoding', 'gzip');
  return c.body(compress ? zipped : plain);
}

/** Sends an error; nothing on the way may keep it. */
export function sendProblem(
  c: Context,
  status: ContentfulStatusCode,
  code: string,
  message: string,
): Response {
  c.header('Cache-Control', 'no-store');
  return c.json({ code, message }, status);
}

/** Sends a blob, or for `GET`, which alone knows ranges (RFC 9110 §14.2), one range of it. */
export function sendBlob(c: Context, blobs: BlobStorage, sha256: string, sizeBytes: number): Response {
  const etag = `"${sha256}"`;
  c.header('ETag', etag);
  c.header('Cache-Control', immutable);
  c.header('Access-Control-Expose-Headers', 'ETag, Content-Range');
  if (matchesTag(c.req.header('if-none-match'), etag)) return c.body(null, 304);
  c.header('Accept-Ranges', 'bytes');
  c.header('Content-Type', 'application/octet-stream');
  c.header('X-Content-Type-Options', 'nosniff');
  // RFC 9110 §13.1.5: a range of something else than the client has begun with is of no use to it.
  const condition = c.req.header('if-range');
  const isGet = c.req.method === 'GET';
  const isWanted = isGet && (condition === undefined || condition === etag);
  const range = isWanted ? parseRange(c.req.header('range'), sizeBytes) : undefined;
  if (range === 'unsatisfiable') {
    c.header('Content-Range', `bytes */${sizeBytes}`);
    return sendProblem(
      c,
      416,
      'ERR_INLAY_REFUSED',
      `The range lies outside the ${sizeBytes} bytes of the file.`,
    );
  }
  const { start, end } = range ?? { start: 0, end: sizeBytes - 1 };
  c.header('Content-Length', String(end - start + 1));
  if (range) c.header('Content-Range', `bytes ${start}-${end}/${sizeBytes}`);
  const status = range ? 206 : 200;
  if (!isGet || end < start) return c.body(null, status);
  return c.body(blobs.read(sha256, start, end), status);
}

/**
 * Reads a `Range` header (RFC 9110 §14.1.2).
 * @returns first and last byte; `undefined` where the whole file is to be sent: no header, another unit, several
 * ranges or a malformed one.
 */
export function parseRange(
  header: string | undefined,
  sizeBytes: number,
): { readonly start: number; readonly end: number } | 'unsatisfiable' | undefined {
  const [, first = '', last = ''] = /^bytes=(\d{0,15})-(\d{0,15})$/i.exec(header?.trim() ?? '') ?? [];
  if (first === '' && last === '') return undefined;
  if (first === '') {
    const length = Math.min(Number(last), sizeBytes);
    return length === 0 ? 'unsatisfiable' : { start: sizeBytes - length, end: sizeBytes - 1 };
  }
  const start = Number(first);
  const end = last === '' ? sizeBytes - 1 : Math.min(Number(last), sizeBytes - 1);
  if (last !== '' && Number(last) < start) return undefined;
  return start >= sizeBytes ? 'unsatisfiable' : { start, end };
}

function matchesTag(header: string | undefined, etag: string): boolean {
  if (header === undefined) return false;
  return header.split(',').some((tag) => tag.trim() === '*' || tag.trim().replace(/^W\//, '') === etag);
}

function acceptsGzip(header = ''): boolean {
  return /(?:^|,)\s*gzip\s*(?:;\s*q=(?!0(?:\.0*)?\s*(?:,|$))[^,]*)?(?:,|$)/i.test(header);
}
