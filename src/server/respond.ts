/** Answers with validators: strong entity tags, 304, compression and single ranges (RFC 9110, RFC 9111). */

import { createHash } from 'node:crypto';
import { promisify } from 'node:util';
import { brotliCompress as brotliCallback, constants, gzip as gzipCallback } from 'node:zlib';
import type { Context } from 'hono';
import type { ContentfulStatusCode } from 'hono/utils/http-status';
import { toUtf8 } from '../core/bytes.ts';
import type { BlobStorage } from './storage/blobs.ts';

const gzip = promisify(gzipCallback);
const brotliCompress = promisify(brotliCallback);

/** `Cache-Control` of what never changes. */
export const immutable = 'public, max-age=31536000, immutable';
/** `Cache-Control` of what is asked for again each time. */
export const revalidated = 'no-cache';

/** Encodings in which texts are sent, the smallest first. */
const encodings = ['br', 'gzip'] as const;

/** One form of a text. */
interface Form {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Entity tag with its quotes. Each form has a tag of its own (RFC 9110 §8.8.3.3). */
  readonly etag: string;
}

/** A text in the encodings in which it is sent. */
export type Representation = Readonly<Record<'plain' | (typeof encodings)[number], Form>>;

/** Up to here a text is compressed as far as that goes, bytes: devices ask for it every hour. */
const smallText = 65_536;

/** Encodes a text, or the bytes of a file, for sending. */
export async function represent(content: string | Uint8Array): Promise<Representation> {
  const plain = typeof content === 'string' ? toUtf8(content) : new Uint8Array(content);
  const quality = plain.length <= smallText ? constants.BROTLI_MAX_QUALITY : 5;
  const [zipped, brotli] = await Promise.all([
    gzip(plain, { level: constants.Z_BEST_COMPRESSION }),
    brotliCompress(plain, { params: { [constants.BROTLI_PARAM_QUALITY]: quality } }),
  ]);
  // It travels both ways with every poll; 48 bits tell any two texts apart that follow each other.
  const digest = createHash('sha256').update(plain).digest('base64url');
  return {
    plain: { bytes: plain, etag: `"${digest.slice(0, 8)}"` },
    gzip: { bytes: new Uint8Array(zipped), etag: `"${digest.slice(8, 16)}"` },
    br: { bytes: new Uint8Array(brotli), etag: `"${digest.slice(16, 24)}"` },
  };
}

/** Sends a text, JSON unless told otherwise, compressed if the client takes that. */
export function sendText(
  c: Context,
  forms: Representation,
  cacheControl: string,
  type = 'application/json',
): Response {
  const accepted = c.req.header('accept-encoding');
  const encoding = encodings.find(
    (name) => accepts(accepted, name) && forms[name].bytes.length < forms.plain.bytes.length,
  );
  const { bytes, etag } = forms[encoding ?? 'plain'];
  c.header('ETag', etag);
  c.header('Cache-Control', cacheControl);
  c.header('Vary', 'Accept-Encoding');
  if (matchesTag(c.req.header('if-none-match'), etag)) return c.body(null, 304);
  c.header('Access-Control-Expose-Headers', 'ETag');
  c.header('Content-Type', type);
  if (encoding) c.header('Content-Encoding', encoding);
  return c.body(bytes);
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

function accepts(header: string | undefined, encoding: (typeof encodings)[number]): boolean {
  return new RegExp(`(?:^|,)\\s*${encoding}\\s*(?:;\\s*q=(?!0(?:\\.0*)?\\s*(?:,|$))[^,]*)?(?:,|$)`, 'i').test(
    header ?? '',
  );
}
