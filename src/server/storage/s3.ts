import { toHex } from '../../core/bytes.ts';
import { isInlayError, StoreError, TrustError } from '../../core/errors.ts';
import type { Platform } from '../../core/platform.ts';
import type { BlobStorage } from './blobs.ts';
import { createS3Client, readElement, readElements, readS3Settings, type S3Client } from './s3-client.ts';

/** Options of {@link openS3Storage}. */
export interface S3StorageOptions {
  /** Has the bucket and its keys; see `readS3Settings`. */
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly platform: Pick<Platform, 'createSha256' | 'fetch' | 'now' | 'random' | 'setTimer'>;
  /** What goes up in one piece, and is in memory until then; S3 wants 5 MiB at least. Default 8 MiB. */
  readonly partBytes?: number;
}

const maxParts = 10_000;
/** An upload in parts that is older than this was left by a process that died. */
const staleMs = 24 * 3_600_000;
/** How often the rest of a blob is asked for when its transfer breaks, without a byte in between. */
const maxBreaks = 4;

/**
 * Opens a bucket of blobs: `PREFIX/ab/abcdef…`. A blob appears under its name only when all of it is there and has its
 * hash. Any number of servers may use the bucket.
 * @throws {@link StoreError} if the bucket cannot be read, `ServerError` `ERR_INLAY_REFUSED` if a setting is missing.
 */
export async function openS3Storage(options: S3StorageOptions): Promise<BlobStorage> {
  const { env, platform, partBytes = 8 * 2 ** 20 } = options;
  const settings = readS3Settings(env);
  const send = createS3Client(settings, platform);
  const keyOf = (sha256: string): string => {
    if (!/^[0-9a-f]{64}$/.test(sha256)) throw new RangeError('A blob is named by 64 lower-case hex digits.');
    return `${settings.prefix}${sha256.slice(0, 2)}/${sha256}`;
  };
  const list = (query: Readonly<Record<string, string>>): Promise<string> =>
    readText(send, { 'list-type': '2', ...(settings.prefix && { prefix: settings.prefix }), ...query });

  const size = async (sha256: string): Promise<number | undefined> => {
    const response = await send({ method: 'HEAD', key: keyOf(sha256), expects: [404] });
    return response.status === 404 ? undefined : Number(response.headers.get('content-length'));
  };

  /** Whether the server knows `If-None-Match` (RFC 9110 §13.1.2) of what is written. */
  let isConditional = true;

  const putWhole = async (key: string, body: Uint8Array<ArrayBuffer>): Promise<void> => {
    const headers = isConditional ? { 'if-none-match': '*' } : {};
    const response = await send({ method: 'PUT', key, body, headers, expects: [412, 501] });
    await response.body?.cancel();
    if (response.status !== 501) return;
    if (!isConditional) throw ioError('The S3 server takes no PUT.');
    // Without it the same bytes are written over the same bytes.
    isConditional = false;
    await putWhole(key, body);
  };

  await list({ 'max-keys': '1' });
  await removeStale(send, settings.prefix, platform.now() - staleMs).catch(() => undefined);

  return {
    size,

    write: async (sha256, content, maxBytes) => {
      const key = keyOf(sha256);
      const present = await size(sha256);
      const hash = platform.createSha256();
      const parts = createParts(send, key, Math.max(partBytes, Math.ceil(maxBytes / maxParts)));
      let sizeBytes = 0;
      try {
        for await (const chunk of content) {
          sizeBytes += chunk.length;
          if (sizeBytes > maxBytes) {
            throw new TrustError(
              'ERR_INLAY_LENGTH',
              `The blob has more than the ${maxBytes} bytes allowed.`,
              {
                details: { sha256, maxBytes },
              },
            );
          }
          hash.update(chunk);
          if (present === undefined) await parts.add(chunk);
        }
        const actual = toHex(hash.digest());
        if (actual !== sha256) {
          throw new StoreError(
            'ERR_INLAY_STORE_MISMATCH',
            `The ${sizeBytes} bytes sent hash to ${actual}, not to ${sha256}; send the file again.`,
            { details: { sha256, actual, sizeBytes } },
          );
        }
        if (present === undefined) await parts.finish((whole) => putWhole(key, whole));
      } catch (error) {
        await parts.abort();
        throw error instanceof Error && !isInlayError(error) && !(error instanceof RangeError)
          ? ioError('The blob could not be read to its end; send it again.', error)
          : error;
      }
      const kept = present ?? (await size(sha256));
      if (kept === sizeBytes) return sizeBytes;
      throw ioError(
        `The bucket has ${kept ?? 0} of the ${sizeBytes} bytes of ${key}; delete that object and send it again.`,
      );
    },

    read: (sha256, start, end) => readRange(send, keyOf(sha256), start, end),

    usage: async () => {
      let count = 0;
      let sizeBytes = 0;
      let token: string | undefined;
      do {
        const page = await list(token === undefined ? {} : { 'continuation-token': token });
        for (const entry of readElements(page, 'Contents')) {
          const name = (readElement(entry, 'Key') ?? '').slice(settings.prefix.length);
          if (!/^[0-9a-f]{2}\/[0-9a-f]{64}$/.test(name)) continue;
          count += 1;
          sizeBytes += Number(readElement(entry, 'Size'));
        }
        token = readElement(page, 'NextContinuationToken');
      } while (token !== undefined);
      return { count, sizeBytes };
    },
  };
}

/** An upload that begins as one piece and goes on in parts if it grows. */
interface Parts {
  add(chunk: Uint8Array): Promise<void>;
  /** Makes all of it appear. @param putWhole for what has fitted into one part. */
  finish(putWhole: (body: Uint8Array<ArrayBuffer>) => Promise<void>): Promise<void>;
  /** Leaves nothing behind. */
  abort(): Promise<void>;
}

function createParts(send: S3Client, key: string, sizeBytes: number): Parts {
  let pending = new Uint8Array(Math.min(sizeBytes, 2 ** 16));
  let used = 0;
  let uploadId: string | undefined;
  const etags: string[] = [];

  const begin = async (): Promise<string> => {
    const answer = await (await send({ method: 'POST', key, query: { uploads: '' } })).text();
    uploadId = readElement(answer, 'UploadId');
    if (uploadId === undefined) throw ioError('The S3 server began no upload in parts.');
    return uploadId;
  };

  const flush = async (): Promise<void> => {
    const query = { partNumber: String(etags.length + 1), uploadId: uploadId ?? (await begin()) };
    const response = await send({ method: 'PUT', key, query, body: pending.subarray(0, used) });
    await response.body?.cancel();
    etags.push(response.headers.get('etag') ?? '');
    used = 0;
  };

  return {
    add: async (chunk) => {
      for (let at = 0; at < chunk.length;) {
        // A full part goes up only when more comes: what fits into one needs no parts.
        if (used === sizeBytes) await flush();
        const piece = chunk.subarray(at, at + sizeBytes - used);
        pending = withRoom(pending, used, used + piece.length, sizeBytes);
        pending.set(piece, used);
        used += piece.length;
        at += piece.length;
      }
    },

    finish: async (putWhole) => {
      if (uploadId === undefined) {
        await putWhole(pending.subarray(0, used));
        return;
      }
      await flush();
      const parts = etags.map(
        (etag, i) => `<Part><PartNumber>${i + 1}</PartNumber><ETag>${etag}</ETag></Part>`,
      );
      const body = `<CompleteMultipartUpload>${parts.join('')}</CompleteMultipartUpload>`;
      // 404: it was complete already, and the answer to that was lost. Whether it is, its size tells.
      const answer = await send({ method: 'POST', key, query: { uploadId }, body, expects: [404] });
      const text = await answer.text();
      if (answer.ok && !text.includes('<CompleteMultipartUploadResult')) {
        throw ioError(
          `The S3 server did not put the parts together: ${readElement(text, 'Code') ?? 'no reason'}.`,
        );
      }
      uploadId = undefined;
    },

    abort: async () => {
      if (uploadId === undefined) return;
      await send({ method: 'DELETE', key, query: { uploadId }, expects: [404] }).catch(() => undefined);
    },
  };
}

/** Grows a buffer by doubling. */
function withRoom(
  buffer: Uint8Array<ArrayBuffer>,
  used: number,
  needed: number,
  max: number,
): Uint8Array<ArrayBuffer> {
  if (buffer.length >= needed) return buffer;
  const larger = new Uint8Array(Math.min(max, Math.max(needed, 2 * buffer.length)));
  larger.set(buffer.subarray(0, used));
  return larger;
}

/** Reads a part of an object, and goes on after the last byte that came where the transfer breaks. */
function readRange(
  send: S3Client,
  key: string,
  start: number,
  end: number,
): ReadableStream<Uint8Array<ArrayBuffer>> {
  const stop = new AbortController();
  let at = start;
  let breaks = 0;
  let reader: ReadableStreamDefaultReader<Uint8Array<ArrayBuffer>> | undefined;

  const open = async (): Promise<ReadableStreamDefaultReader<Uint8Array<ArrayBuffer>>> => {
    const headers = { range: `bytes=${at}-${end}` };
    const response = await send({ method: 'GET', key, headers, signal: stop.signal });
    const range = `bytes ${at}-${end}/`;
    if (
      response.status !== 206 ||
      !response.headers.get('content-range')?.startsWith(range) ||
      !response.body
    ) {
      await response.body?.cancel();
      throw ioError('The S3 server does not answer with the range of bytes that it was asked for.');
    }
    return response.body.getReader();
  };

  return new ReadableStream<Uint8Array<ArrayBuffer>>({
    pull: async (controller) => {
      while (at <= end) {
        let chunk: Uint8Array<ArrayBuffer> | undefined;
        reader ??= await open();
        try {
          chunk = (await reader.read()).value;
        } catch (cause) {
          stop.signal.throwIfAborted();
          if (breaks >= maxBreaks)
            throw ioError('The transfer from the S3 server breaks again and again.', cause);
        }
        if (chunk && chunk.length > 0) {
          const piece = chunk.subarray(0, end + 1 - at);
          at += piece.length;
          breaks = 0;
          controller.enqueue(piece);
          if (at <= end) return;
        } else {
          reader = undefined;
          breaks += 1;
          if (breaks > maxBreaks) throw ioError('The S3 server sends less than it promises.');
        }
      }
      controller.close();
    },
    cancel: async (reason) => {
      stop.abort(reason);
      await reader?.cancel(reason).catch(() => undefined);
    },
  });
}

/** Ends uploads in parts that nobody goes on with. */
async function removeStale(send: S3Client, prefix: string, before: number): Promise<void> {
  const uploads = await readText(send, { uploads: '', ...(prefix && { prefix }) });
  for (const upload of readElements(uploads, 'Upload')) {
    const key = readElement(upload, 'Key');
    const uploadId = readElement(upload, 'UploadId');
    const begun = Date.parse(readElement(upload, 'Initiated') ?? '');
    if (key !== undefined && uploadId !== undefined && begun < before) {
      await send({ method: 'DELETE', key, query: { uploadId }, expects: [404] });
    }
  }
}

async function readText(send: S3Client, query: Readonly<Record<string, string>>): Promise<string> {
  return (await send({ method: 'GET', query })).text();
}

function ioError(message: string, cause?: unknown): StoreError {
  return new StoreError('ERR_INLAY_STORE_IO', message, cause === undefined ? {} : { cause });
}
