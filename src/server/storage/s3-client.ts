/** Signed requests to one bucket of an S3-compatible server, again where that may help. */

import { AwsV4Signer } from 'aws4fetch';
import { NetworkError, ServerError, StoreError } from '../../core/errors.ts';
import type { Platform } from '../../core/platform.ts';
import { retry } from '../../core/retry.ts';

/** Where the bucket is, and with which keys. */
export interface S3Settings {
  /** Such as `https://s3.eu-central-1.amazonaws.com`. */
  readonly endpoint: string;
  readonly bucket: string;
  readonly region: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  /** Of all keys: empty, or with `/` at its end. */
  readonly prefix: string;
}

/** One request. */
export interface S3Request {
  readonly method: 'GET' | 'HEAD' | 'PUT' | 'POST' | 'DELETE';
  /** Absent for the bucket itself. */
  readonly key?: string;
  readonly query?: Readonly<Record<string, string>>;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array<ArrayBuffer> | string;
  readonly signal?: AbortSignal;
  /** Statuses that are an answer rather than a failure, besides those below 300. */
  readonly expects?: readonly number[];
}

/** Sends a request. @throws {@link StoreError}, see {@link createS3Client}. */
export type S3Client = (request: S3Request) => Promise<Response>;

/** Tries in all; with the waits between them about 10 s, longer than a server takes to let up. */
const attempts = 6;
/** Longest time until the headers of an answer are there. A part goes up in that time, even at 2 Mbit/s. */
const answerMs = 60_000;

/**
 * Reads `INLAY_S3_ENDPOINT`, `_BUCKET`, `_REGION` (default `us-east-1`), `_ACCESS_KEY_ID`, `_SECRET_ACCESS_KEY` and
 * `_PREFIX` (default empty).
 * @throws {@link ServerError} `ERR_INLAY_REFUSED` if one is missing or no URL.
 */
export function readS3Settings(env: Readonly<Record<string, string | undefined>>): S3Settings {
  const read = (name: string): string => {
    const value = env[name];
    if (value) return value;
    throw new ServerError('ERR_INLAY_REFUSED', `Blobs are to be kept in S3; set ${name} too.`);
  };
  const endpoint = read('INLAY_S3_ENDPOINT');
  if (!/^https?:\/\//.test(endpoint) || !URL.canParse(endpoint)) {
    throw new ServerError(
      'ERR_INLAY_REFUSED',
      'INLAY_S3_ENDPOINT is no URL; set one such as https://s3.example.',
    );
  }
  const prefix = (env['INLAY_S3_PREFIX'] ?? '').replace(/^\/+|\/+$/g, '');
  return {
    endpoint: endpoint.replace(/\/+$/, ''),
    bucket: read('INLAY_S3_BUCKET'),
    region: env['INLAY_S3_REGION'] || 'us-east-1',
    accessKeyId: read('INLAY_S3_ACCESS_KEY_ID'),
    secretAccessKey: read('INLAY_S3_SECRET_ACCESS_KEY'),
    prefix: prefix === '' ? '' : `${prefix}/`,
  };
}

/**
 * Creates the client of a bucket. Requests are repeated after network failures, 408, 429 and 5xx but 501, with growing
 * random waits (full jitter) or as long as the server asks.
 * @throws {@link StoreError} from the client: `ERR_INLAY_STORE_FULL` for a quota, `ERR_INLAY_STORE_READ_ONLY` for keys that
 * may not, `ERR_INLAY_STORE_IO` for all else; `details.status` has the status if there was one.
 */
export function createS3Client(
  settings: S3Settings,
  platform: Pick<Platform, 'fetch' | 'setTimer' | 'random'>,
): S3Client {
  const { endpoint, bucket, region, accessKeyId, secretAccessKey } = settings;

  const once = async (request: S3Request): Promise<Response> => {
    const { method, key, query = {}, headers = {}, body, signal, expects = [] } = request;
    const url = new URL(`${endpoint}/${bucket}${key === undefined ? '' : `/${key}`}`);
    url.search = new URLSearchParams(query).toString();
    const keys = { accessKeyId, secretAccessKey, region, service: 's3' };
    const payload = { 'x-amz-content-sha256': await sha256(body) };
    const signed = await new AwsV4Signer({
      ...keys,
      method,
      url: url.href,
      headers: { ...headers, ...payload },
    }).sign();

    const silence = new AbortController();
    const stop = (): void => silence.abort(signal?.reason);
    signal?.throwIfAborted();
    signal?.addEventListener('abort', stop, { once: true });
    const cancelTimer = platform.setTimer(() => silence.abort(), answerMs);
    let response: Response;
    try {
      response = await platform.fetch(signed.url.href, {
        method,
        headers: signed.headers,
        signal: silence.signal,
        ...(body !== undefined && { body }),
      });
    } catch (cause) {
      signal?.throwIfAborted();
      throw new NetworkError('ERR_INLAY_NETWORK', 'The S3 server cannot be reached, or does not answer.', {
        cause,
        details: { retryable: true },
      });
    } finally {
      cancelTimer();
    }
    if (response.ok || expects.includes(response.status)) return response;
    throw await refusal(response);
  };

  return async (request) => {
    try {
      return await retry(() => once(request), {
        platform,
        attempts,
        baseMs: 200,
        capMs: 5000,
        signal: request.signal,
      });
    } catch (error) {
      throw request.signal?.aborted ? error : toStoreError(error);
    }
  };
}

/** Content of the first element of a name in an answer, with its five entities resolved (XML 1.0 §4.6). */
export function readElement(xml: string, name: string): string | undefined {
  return readElements(xml, name)[0];
}

/** Contents of all elements of a name. None is within another of the same name in what S3 answers. */
export function readElements(xml: string, name: string): readonly string[] {
  const matches = xml.matchAll(new RegExp(`<${name}>(.*?)</${name}>`, 'gs'));
  return Array.from(matches, ([, content = '']) =>
    content.replace(/&(lt|gt|quot|apos|amp);/g, (_, entity: string) => entities[entity] ?? ''),
  );
}

const entities: Readonly<Record<string, string>> = { lt: '<', gt: '>', quot: '"', apos: "'", amp: '&' };

async function sha256(body: Uint8Array<ArrayBuffer> | string = ''): Promise<string> {
  const bytes = typeof body === 'string' ? new TextEncoder().encode(body) : body;
  return Buffer.from(await crypto.subtle.digest('SHA-256', bytes)).toString('hex');
}

async function refusal(response: Response): Promise<NetworkError> {
  const { status } = response;
  // What comes besides the code may name keys.
  const code = readElement(await response.text().catch(() => ''), 'Code') ?? '';
  const retryable = status === 408 || status === 429 || status === 409 || (status >= 500 && status !== 501);
  const afterS = Number(response.headers.get('retry-after') ?? 0);
  return new NetworkError('ERR_INLAY_HTTP_STATUS', `The S3 server answered ${status} ${code}`.trim() + '.', {
    details: { status, code, retryable, ...(afterS > 0 && { retryAfterMs: afterS * 1000 }) },
  });
}

function toStoreError(cause: unknown): StoreError {
  const { status, code } = (cause instanceof NetworkError ? cause.details : {}) as {
    status?: number;
    code?: string;
  };
  const parts = { cause, details: { ...(status !== undefined && { status, code }) } };
  if (status === 507 || code === 'QuotaExceeded' || code === 'XMinioStorageFull') {
    return new StoreError(
      'ERR_INLAY_STORE_FULL',
      'The bucket is full; free space or raise its quota.',
      parts,
    );
  }
  if (status === 401 || status === 403) {
    return new StoreError(
      'ERR_INLAY_STORE_READ_ONLY',
      `The S3 server refuses with ${status} ${code ?? ''}; check the keys, their permissions and the clock.`,
      parts,
    );
  }
  return new StoreError(
    'ERR_INLAY_STORE_IO',
    status === undefined
      ? 'The S3 server failed; see the cause.'
      : `The S3 server answered ${status} ${code ?? ''}; check endpoint, region and bucket.`,
    parts,
  );
}
