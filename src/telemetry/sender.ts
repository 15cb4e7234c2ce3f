/** Sends sealed reports as they are, and says what became of each. */

import { fromUtf8, toUtf8 } from '../core/bytes.ts';
import type { Platform } from '../core/platform.ts';
import { parseRetryAfter } from '../core/retry.ts';
import { isFields, isSize } from '../trust/parse.ts';
import { MAX_REQUEST_BYTES } from './report.ts';
import type { Sealed } from './spool-record.ts';

/** What {@link createSender} works with. */
export interface SenderParts {
  readonly platform: Pick<Platform, 'fetch' | 'setTimer' | 'now' | 'runtime'>;
  /** Base URL of the sync server. */
  readonly url: string;
  /** Key with the role `device`, where the server asks for one. */
  readonly key?: string | undefined;
  /** Whether reports may go: asked before each request, since people may change their mind between two. Default: always. */
  readonly mayReport?: () => boolean;
}

/** Names a report. */
export type ReportName = Pick<Sealed, 'epoch' | 'seq'>;

/** What became of a request. */
export interface Sent {
  /** Reports that are at the server, and those that it will never take, with the reason. Both may be forgotten. */
  readonly done: readonly ReportName[];
  readonly refused: readonly (ReportName & { readonly code: string })[];
  /** Seconds between reports that the server asks for. */
  readonly next?: number;
  /** Why the others are not there: they may be sent again. */
  readonly failure?: { readonly message: string; readonly retryAfterMs: number; readonly isOffline: boolean };
}

/** Sends to one server. Nothing here throws. */
export interface Sender {
  /**
   * Sends reports, oldest first, in as few requests as it takes. It stops at the first failure.
   * @param capBytes - longest request before compression.
   * @param isLeaving - people leave the page: the request outlives it.
   */
  send(reports: readonly Sealed[], capBytes?: number, isLeaving?: boolean): Promise<Sent>;
  /** Asks the server to forget what it has of this installation. @returns whether it has heard of it. */
  forget(dev: string): Promise<boolean>;
}

const REPORTS = '/v1/reports';
/** Longest wait for an answer, milliseconds. */
const TIMEOUT_MS = 30_000;
/** Longest `Retry-After` that is honoured, milliseconds. */
const LONGEST_WAIT_MS = 86_400_000;
/** What a request has beside its reports, bytes. */
const FRAME_BYTES = '{"sent":1234567890123.4567,"reports":[]}'.length;
/** Statuses that may pass by themselves. */
const passing: ReadonlySet<number> = new Set([408, 425, 429]);

/** An answer that was read to its end. */
interface Answer {
  readonly response: Response;
  /** Its JSON; `undefined` where it is none. */
  readonly value: unknown;
}

/** Creates the sender to one server. */
export function createSender({ platform, url, key, mayReport = () => true }: SenderParts): Sender {
  // A page's request to another site is asked for beforehand, unless it looks like that of a form.
  const isPage = platform.runtime.startsWith('web');

  const post = async (path: string, text: string, isLeaving = false): Promise<Answer> => {
    const bytes = toUtf8(text);
    const isGzip = path === REPORTS && typeof CompressionStream === 'function';
    const body = isGzip ? await gzip(bytes) : bytes;
    const controller = new AbortController();
    let cancel = (): void => {};
    const late = new Promise<never>((_, reject) => {
      cancel = platform.setTimer(() => {
        reject(new Error(`there is no answer within ${TIMEOUT_MS} ms`));
        controller.abort();
      }, TIMEOUT_MS);
    });
    const request = platform.fetch(`${url}${path}`, {
      method: 'POST',
      body,
      headers: {
        'content-type': isPage ? 'text/plain' : 'application/json',
        // Servers tell by the first bytes as well.
        ...(isGzip && !isPage && { 'content-encoding': 'gzip' }),
        ...(key !== undefined && { authorization: `Bearer ${key}` }),
      },
      cache: 'no-store',
      credentials: 'omit',
      signal: controller.signal,
      ...(isLeaving && { keepalive: true }),
    });
    const read = async (): Promise<Answer> => {
      const response = await request;
      return { response, value: parseJson(new Uint8Array(await response.arrayBuffer())) };
    };
    try {
      return await Promise.race([read(), late]);
    } finally {
      cancel();
    }
  };

  const sendOnce = async (reports: readonly Sealed[], isLeaving: boolean): Promise<Sent> => {
    if (!mayReport()) return failed('nobody agrees to it any more', 0, false);
    let answer: Answer;
    try {
      const texts = reports.map(({ text }) => text).join(',');
      // The time of sending, unlike that of sealing, shows how wrong this clock is.
      const sent = Math.floor(platform.now());
      answer = await post(REPORTS, `{"sent":${sent},"reports":[${texts}]}`, isLeaving);
    } catch (error) {
      return failed(error instanceof Error ? error.message : String(error), 0, true);
    }
    const { response, value } = answer;
    const { status } = response;
    if (status === 413) {
      const half = Math.ceil(reports.length / 2);
      if (reports.length === 1) return { done: [], refused: nameAll(reports, 'too_large') };
      return sendInTurn([reports.slice(0, half), reports.slice(half)], (part) => sendOnce(part, isLeaving));
    }
    if (response.ok) {
      // It may be that of a login page.
      return readAnswer(value) ?? failed('the answer is not that of a sync server', 0, true);
    }
    if (status >= 500 || status < 400 || passing.has(status)) {
      const waitMs = parseRetryAfter(response.headers.get('retry-after'), platform.now()) ?? 0;
      return failed(`the server answers with status ${status}`, Math.min(waitMs, LONGEST_WAIT_MS), false);
    }
    return { done: [], refused: nameAll(reports, status === 410 ? 'too_old' : 'refused') };
  };

  return {
    send: (reports, capBytes = MAX_REQUEST_BYTES, isLeaving = false) =>
      sendInTurn(split(reports, capBytes), (part) => sendOnce(part, isLeaving)),
    forget: async (dev) => {
      try {
        const { response } = await post('/v1/forget', JSON.stringify({ dev }));
        const { ok, status } = response;
        return ok || (status >= 400 && status < 500 && !passing.has(status));
      } catch {
        return false;
      }
    },
  };
}

/** Cuts reports into requests. One that is too long alone has a request of its own. */
export function split(reports: readonly Sealed[], capBytes: number): readonly (readonly Sealed[])[] {
  const requests: Sealed[][] = [];
  let room = 0;
  for (const report of reports) {
    // Letters outside of ASCII take up to three bytes; names of models and versions have none.
    const bytes = report.text.length + 1;
    const last = requests.at(-1);
    if (last === undefined || bytes > room) {
      requests.push([report]);
      room = capBytes - FRAME_BYTES - bytes;
    } else {
      last.push(report);
      room -= bytes;
    }
  }
  return requests;
}

async function sendInTurn(
  requests: readonly (readonly Sealed[])[],
  send: (part: readonly Sealed[]) => Promise<Sent>,
): Promise<Sent> {
  let all: Sent = { done: [], refused: [] };
  for (const part of requests) {
    const { done, refused, ...rest } = await send(part);
    all = { ...all, ...rest, done: [...all.done, ...done], refused: [...all.refused, ...refused] };
    if (rest.failure !== undefined) break;
  }
  return all;
}

function failed(message: string, retryAfterMs: number, isOffline: boolean): Sent {
  return { done: [], refused: [], failure: { message, retryAfterMs, isOffline } };
}

function nameAll(reports: readonly Sealed[], code: string): Sent['refused'] {
  return reports.map(({ epoch, seq }) => ({ epoch, seq, code }));
}

function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(fromUtf8(bytes));
  } catch {
    return undefined;
  }
}

function readAnswer(value: unknown): Sent | undefined {
  if (!isFields(value)) return undefined;
  const { done, refused, next } = value;
  const isName = (one: unknown): one is ReportName =>
    isFields(one) && typeof one['epoch'] === 'string' && isSize(one['seq']);
  if (!Array.isArray(done) || !Array.isArray(refused) || ![...done, ...refused].every(isName))
    return undefined;
  return {
    done,
    refused: refused.map((one: ReportName & { readonly code?: unknown }) => ({
      epoch: one.epoch,
      seq: one.seq,
      code: /old|gone/i.test(String(one.code)) ? 'too_old' : 'refused',
    })),
    ...(typeof next === 'number' && next > 0 && { next }),
  };
}

async function gzip(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  const { readable, writable } = new CompressionStream('gzip');
  const writer = writable.getWriter();
  // The reader fails of the same.
  writer.write(bytes).catch(() => {});
  writer.close().catch(() => {});
  return new Uint8Array(await new Response(readable).arrayBuffer());
}
