/** Bounded GET requests whose failures say what went wrong. */

import { assertNotAborted, reasonOf } from '../core/abort.ts';
import { concatBytes, fromUtf8, showUtf8 } from '../core/bytes.ts';
import { NetworkError, TrustError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import { parseRetryAfter } from '../core/retry.ts';

/** What a request may cost. */
export interface FetchOptions {
  /** Largest body that is read, bytes. */
  readonly capBytes: number;
  /** Longest silence of the server, milliseconds. Default 20,000. */
  readonly timeoutMs?: number | undefined;
  readonly headers?: Readonly<Record<string, string>>;
  /** Whether caches and credentials are used as for other files of a page. Default false: neither is. */
  readonly isOfPage?: boolean;
  readonly signal?: AbortSignal | undefined;
  /** Told of every piece: bytes read so far, and how many there are where the server says so. */
  readonly onProgress?: ((loadedBytes: number, totalBytes: number | undefined) => void) | undefined;
}

/** A body that was read to its end. */
export interface Fetched {
  /** 200, or 304 with an empty body if the request was conditional. */
  readonly status: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly etag: string | undefined;
  /** Where it came from in the end, absolute. */
  readonly url: string;
}

/** A body that is read in pieces. */
export interface FetchedStream {
  readonly status: number;
  readonly headers: Headers;
  readonly url: string;
  /** Next piece; `undefined` at the end. */
  read(): Promise<Uint8Array | undefined>;
  /** Ends the request. Safe to call twice, and after the end. */
  close(): void;
}

type FetchPlatform = Pick<Platform, 'fetch' | 'setTimer' | 'now'>;

const defaultTimeoutMs = 20_000;

/** What may come before it is known whether it is the body that was asked for, or that of an error. */
const UNKNOWN_BYTES = 65_536;

/**
 * Reads a whole body.
 * @throws {@link NetworkError} `ERR_INLAY_NETWORK`, `ERR_INLAY_HTTP_STATUS` or, for a web page where data was expected,
 * `ERR_INLAY_HTTP_CONTENT`; {@link TrustError} `ERR_INLAY_LENGTH` beyond the cap.
 */
export async function fetchBytes(
  platform: FetchPlatform,
  url: string,
  options: FetchOptions,
): Promise<Fetched> {
  const { capBytes, onProgress } = options;
  const stream = await openStream(platform, url, options);
  try {
    let length = 0;
    // The length of a compressed body is that of what travels.
    const told = stream.headers.has('content-encoding')
      ? NaN
      : Number(stream.headers.get('content-length') ?? NaN);
    const totalBytes = told >= 0 ? told : undefined;
    if (totalBytes !== undefined && totalBytes > capBytes) throw tooLong(url, capBytes);
    const body = createBody(totalBytes);
    for (let piece = await stream.read(); piece; piece = await stream.read()) {
      length += piece.length;
      if (length > capBytes) throw tooLong(url, capBytes);
      body.push(piece);
      onProgress?.(length, totalBytes);
    }
    return {
      status: stream.status,
      bytes: body.join(),
      etag: stream.headers.get('etag') ?? undefined,
      url: stream.url,
    };
  } finally {
    stream.close();
  }
}

/** What a server may promise before any of it is believed, in bytes. */
const BELIEVED_BYTES = 2 ** 28;

/** Collects a body. Where its length is known, each piece goes to its place at once: to join a large body in one go blocks a page. */
function createBody(totalBytes: number | undefined): {
  push(piece: Uint8Array): void;
  join(): Uint8Array<ArrayBuffer>;
} {
  const pieces: Uint8Array[] = [];
  let length = 0;
  let whole =
    totalBytes === undefined || totalBytes > BELIEVED_BYTES ? undefined : new Uint8Array(totalBytes);
  return {
    push: (piece) => {
      if (whole !== undefined && length + piece.length <= whole.length) whole.set(piece, length);
      else {
        // It sends more than it said.
        if (whole !== undefined) pieces.push(whole.subarray(0, length));
        whole = undefined;
        pieces.push(piece);
      }
      length += piece.length;
    },
    join: () => {
      if (whole === undefined) return concatBytes(pieces);
      return whole.length === length ? whole : whole.slice(0, length);
    },
  };
}

/**
 * Reads a JSON body.
 * @returns the parsed value, `undefined` for 304.
 * @throws as {@link fetchBytes}; `ERR_INLAY_HTTP_CONTENT` also if the body is no JSON.
 */
export async function fetchJson(
  platform: FetchPlatform,
  url: string,
  options: FetchOptions,
): Promise<Fetched & { readonly json: unknown }> {
  const fetched = await fetchBytes(platform, url, options);
  if (fetched.status === 304) return { ...fetched, json: undefined };
  try {
    return { ...fetched, json: JSON.parse(fromUtf8(fetched.bytes)) as unknown };
  } catch (cause) {
    throw wrongContent(url, fetched.bytes, 'JSON', cause);
  }
}

/**
 * Opens a body for reading. The cap ends a request whose body comes as one piece; the pieces of others are counted by
 * the caller.
 * @throws as {@link fetchBytes}; so does `read`.
 */
export async function openStream(
  platform: FetchPlatform,
  url: string,
  options: Omit<FetchOptions, 'capBytes'> & Partial<Pick<FetchOptions, 'capBytes'>>,
): Promise<FetchedStream> {
  const { capBytes = Infinity, timeoutMs = defaultTimeoutMs, headers = {}, signal } = options;
  assertNotAborted(signal);
  const controller = new AbortController();
  let end: (reason: unknown) => void = () => {};
  const ended = new Promise<never>((_, reject) => {
    end = (reason) => {
      reject(reason);
      controller.abort();
    };
  });
  // Nobody may be waiting when it ends.
  ended.catch(() => {});
  const forward = (): void => {
    end(reasonOf(signal));
  };
  signal?.addEventListener('abort', forward, { once: true });
  const close = (): void => {
    signal?.removeEventListener('abort', forward);
    end(undefined);
  };

  /** Runs one step of the exchange under the timeout, also where `fetch` does not heed its signal. */
  const guarded = async <Result>(
    step: (onActivity: (loadedBytes: number) => void) => Promise<Result>,
  ): Promise<Result> => {
    const startTimer = (): (() => void) =>
      platform.setTimer(() => {
        end(unreachable(url, `no answer within ${timeoutMs} ms`));
      }, timeoutMs);
    let cancelTimer = startTimer();
    let isOver = false;
    const onActivity = (loadedBytes: number): void => {
      if (isOver) return;
      cancelTimer();
      cancelTimer = startTimer();
      if (loadedBytes > Math.max(capBytes, UNKNOWN_BYTES)) end(tooLong(url, capBytes));
    };
    try {
      const wrapped = step(onActivity).catch((cause: unknown) => {
        if (controller.signal.aborted) return ended;
        throw unreachable(url, 'the connection failed', cause);
      });
      return await Promise.race([wrapped, ended]);
    } catch (error) {
      close();
      throw error;
    } finally {
      isOver = true;
      cancelTimer();
    }
  };

  const response = await guarded((onActivity) =>
    platform.fetch(url, {
      headers: { ...headers },
      signal: controller.signal,
      onActivity,
      ...(!options.isOfPage && { cache: 'no-store', credentials: 'omit' }),
    }),
  );
  const conditional = Object.keys(headers).some((name) => name.toLowerCase() === 'if-none-match');
  if (!response.ok && !(response.status === 304 && conditional)) {
    const body = await guarded(() => firstBytes(response)).catch(() => new Uint8Array());
    close();
    throw wrongStatus(platform, url, response, body);
  }
  if (response.headers.get('content-type')?.includes('text/html') === true) {
    const body = await guarded(() => firstBytes(response));
    close();
    throw wrongContent(url, body, 'data');
  }
  const next = pieceReader(response);
  return {
    status: response.status,
    headers: response.headers,
    url: response.url || url,
    read: () => guarded(next),
    close,
  };
}

/** React Native's fetch gives no streams; there the body arrives as one piece. */
function pieceReader(response: Response): () => Promise<Uint8Array | undefined> {
  const reader = response.body?.getReader();
  if (reader) {
    return async () => {
      const { done, value } = await reader.read();
      return done ? undefined : value;
    };
  }
  let finished = response.status === 304;
  return async () => {
    if (finished) return undefined;
    finished = true;
    return new Uint8Array(await response.arrayBuffer());
  };
}

async function firstBytes(response: Response): Promise<Uint8Array> {
  const next = pieceReader(response);
  const pieces: Uint8Array[] = [];
  let length = 0;
  for (let piece = await next(); piece; piece = await next()) {
    pieces.push(piece);
    length += piece.length;
    if (length >= 4096) break;
  }
  return concatBytes(pieces).subarray(0, 4096);
}

function unreachable(url: string, problem: string, cause?: unknown): NetworkError {
  const reason = cause instanceof Error ? ` (${cause.message})` : '';
  return new NetworkError(
    'ERR_INLAY_NETWORK',
    `${shownUrl(url)} cannot be reached: ${problem}${reason}; check that the server runs and this device is online.`,
    { details: { url: shownUrl(url), retryable: true }, ...(cause !== undefined && { cause }) },
  );
}

const passingStatus: ReadonlySet<number> = new Set([408, 425, 429, 500, 502, 503, 504]);

function wrongStatus(
  platform: Pick<Platform, 'now'>,
  url: string,
  response: Response,
  body: Uint8Array,
): NetworkError {
  const { status } = response;
  const retryAfter = parseRetryAfter(response.headers.get('retry-after'), platform.now());
  const serverCode = codeIn(body);
  return new NetworkError(
    'ERR_INLAY_HTTP_STATUS',
    `${shownUrl(url)} answers with status ${status}${serverCode ? ` (${serverCode})` : ''}; check the URL and the server's log.`,
    {
      details: {
        url: shownUrl(url),
        status,
        retryable: passingStatus.has(status),
        ...(serverCode !== undefined && { serverCode }),
        ...(retryAfter !== undefined && { retryAfterMs: retryAfter }),
      },
    },
  );
}

function tooLong(url: string, capBytes: number): TrustError {
  return new TrustError(
    'ERR_INLAY_LENGTH',
    `${shownUrl(url)} sends more than the ${capBytes} bytes that are accepted; check what the server has there.`,
    { details: { url: shownUrl(url), capBytes } },
  );
}

/** Builds the error for a body that is something else than was asked for; it shows how the body begins. */
export function wrongContent(url: string, body: Uint8Array, expected: string, cause?: unknown): NetworkError {
  const begins = showUtf8(body.subarray(0, 60)).replace(/\s+/g, ' ');
  return new NetworkError(
    'ERR_INLAY_HTTP_CONTENT',
    `${shownUrl(url)} answers with something else than ${expected}, beginning with ${JSON.stringify(begins)}; ` +
      'check the URL, and whether a proxy or a login page answers in its place.',
    { details: { url: shownUrl(url), begins, retryable: false }, ...(cause !== undefined && { cause }) },
  );
}

/** A `code` that the sync server puts into the JSON of its errors. */
function codeIn(body: Uint8Array): string | undefined {
  try {
    const { code } = JSON.parse(fromUtf8(body)) as { code?: unknown };
    return typeof code === 'string' && /^ERR_INLAY_[A-Z_]{1,40}$/.test(code) ? code : undefined;
  } catch {
    return undefined;
  }
}

/** A URL for messages: without its query, which may carry a token. */
function shownUrl(url: string): string {
  return url.replace(/[?#].*$/s, '');
}
