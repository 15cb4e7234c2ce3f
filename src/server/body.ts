import { concatBytes } from '../core/bytes.ts';
import { NetworkError, ServerError, TrustError } from '../core/errors.ts';

/**
 * Streams the body of a request.
 * @param maxBytes largest `Content-Length` that is let in; who reads the stream counts for itself.
 * @throws {@link TrustError} `ERR_INLAY_LENGTH` before anything is read; the stream {@link NetworkError}
 * `ERR_INLAY_NETWORK` if the sender leaves in the middle.
 */
export function openBody(request: Request, maxBytes: number): AsyncIterable<Uint8Array> {
  if (Number(request.headers.get('content-length') ?? 0) > maxBytes) throw tooLong(maxBytes);
  return chunksOf(request.body);
}

/**
 * Reads the whole body of a request.
 * @throws {@link TrustError} `ERR_INLAY_LENGTH`, {@link NetworkError} `ERR_INLAY_NETWORK`
 */
export async function readBody(request: Request, maxBytes: number): Promise<Uint8Array<ArrayBuffer>> {
  const chunks: Uint8Array[] = [];
  let sizeBytes = 0;
  for await (const chunk of openBody(request, maxBytes)) {
    sizeBytes += chunk.length;
    if (sizeBytes > maxBytes) throw tooLong(maxBytes);
    chunks.push(chunk);
  }
  return concatBytes(chunks);
}

/**
 * Reads a small JSON object.
 * @throws {@link ServerError} `ERR_INLAY_REFUSED` if it is something else.
 */
export async function readJsonObject(request: Request): Promise<Readonly<Record<string, unknown>>> {
  const bytes = await readBody(request, 65_536);
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new ServerError('ERR_INLAY_REFUSED', 'The body is not JSON; send a JSON object.', { cause });
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return { ...value };
  throw new ServerError('ERR_INLAY_REFUSED', 'The body is not a JSON object; send one.');
}

async function* chunksOf(body: ReadableStream<Uint8Array> | null): AsyncGenerator<Uint8Array> {
  if (!body) return;
  const reader = body.getReader();
  const read = (): ReturnType<typeof reader.read> => reader.read().catch(brokenOff);
  for (let part = await read(); !part.done; part = await read()) yield part.value;
}

/** The sender's fault, not that of whoever keeps the body. */
function brokenOff(cause: unknown): never {
  throw new NetworkError('ERR_INLAY_NETWORK', 'The body broke off before its end; send it again.', { cause });
}

function tooLong(maxBytes: number): TrustError {
  return new TrustError('ERR_INLAY_LENGTH', `The body is longer than the ${maxBytes} bytes allowed.`, {
    details: { maxBytes },
  });
}
