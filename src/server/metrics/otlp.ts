import type { Kysely } from 'kysely';
import { NetworkError } from '../../core/errors.ts';
import type { Platform } from '../../core/platform.ts';
import { parseRetryAfter } from '../../core/retry.ts';
import { isFields } from '../../trust/parse.ts';
import type { Schema } from '../db/schema.ts';
import type { Job } from '../jobs/job.ts';
import { collect, type MetricsParts } from './collect.ts';
import { familiesOf } from './families.ts';
import { otlpBody } from './otlp-body.ts';

/** What {@link createOtlpJob} needs. */
export interface OtlpParts extends MetricsParts {
  readonly platform: Pick<Platform, 'now' | 'memoryBytes' | 'fetch' | 'setTimer'>;
  /** Where metrics go, such as `http://collector:4318`; `/v1/metrics` is added if the path is not there. */
  readonly url: string;
  /** Such as a key of the receiver. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Version of this package. */
  readonly version?: string;
  /** Default 60 s. */
  readonly everyMs?: number;
  /** Gets what the receiver does not take. */
  readonly onError: (error: unknown) => void;
}

/** Longest wait for the receiver, milliseconds. */
const timeoutMs = 10_000;
/** Statuses after which the same request may be sent again (OTLP 1.0, "OTLP/HTTP Response"). */
const retryable: ReadonlySet<number> = new Set([429, 502, 503, 504]);

/**
 * Creates the job that pushes metrics over OTLP/HTTP. Sums are cumulative, so what does not arrive this time is in what is sent
 * the next time; nothing is kept back.
 */
export function createOtlpJob(parts: OtlpParts): Job {
  const { db, platform, url, headers = {}, version = '0', everyMs = 60_000, onError } = parts;
  const target = url.endsWith('/v1/metrics') ? url : `${url.replace(/\/+$/, '')}/v1/metrics`;
  let notBefore = 0;
  let start: Promise<number> | undefined;

  return {
    name: 'otlp',
    everyMs,
    run: async (now, signal) => {
      if (now < notBefore) return;
      start ??= startOf(db, now).catch((error: unknown) => {
        start = undefined;
        throw error;
      });
      const body = otlpBody(familiesOf(await collect(parts)), { startMs: await start, atMs: now }, version);
      const response = await post(JSON.stringify(body), signal);
      const text = await response.text();
      if (response.ok) {
        const problem = partialProblem(text);
        if (problem !== undefined) onError(refusal(target, problem));
      } else if (retryable.has(response.status)) {
        notBefore = now + (parseRetryAfter(response.headers.get('retry-after'), now) ?? 0);
      } else onError(refusal(target, `status ${response.status}`));
    },
  };

  async function post(body: string, signal: AbortSignal): Promise<Response> {
    const controller = new AbortController();
    const abort = (): void => {
      controller.abort();
    };
    signal.addEventListener('abort', abort);
    const cancel = platform.setTimer(abort, timeoutMs);
    try {
      return await platform.fetch(target, {
        method: 'POST',
        headers: { ...headers, 'content-type': 'application/json' },
        body,
        signal: controller.signal,
      });
    } catch (cause) {
      throw new NetworkError('ERR_INLAY_NETWORK', `${target} cannot be reached; check the address.`, {
        cause,
      });
    } finally {
      cancel();
      signal.removeEventListener('abort', abort);
    }
  }
}

/** Begin of the first day that was counted. It is kept, so that sums have one beginning on every replica and for ever. */
async function startOf(db: Kysely<Schema>, now: number): Promise<number> {
  const first = await db
    .selectFrom('roll')
    .select((eb) => eb.fn.min('t_s').as('t_s'))
    .where('res', '=', 86_400)
    .executeTakeFirst();
  const body = String(first?.t_s ? Math.min(first.t_s * 1000, now) : now);
  const kept = db.selectFrom('setting').select('body').where('name', '=', 'otlp.start');
  await db
    .insertInto('setting')
    .values({ name: 'otlp.start', body })
    .onConflict((conflict) => conflict.column('name').doNothing())
    .execute();
  return Number((await kept.executeTakeFirst())?.body ?? body);
}

/** What of a request that was taken was not taken. */
function partialProblem(text: string): string | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text === '' ? '{}' : text);
  } catch {
    return undefined;
  }
  const partial = isFields(value) ? value['partialSuccess'] : undefined;
  if (!isFields(partial)) return undefined;
  const { rejectedDataPoints = 0, errorMessage = '' } = partial;
  if (Number(rejectedDataPoints) === 0 && errorMessage === '') return undefined;
  return `${Number(rejectedDataPoints)} points refused: ${String(errorMessage).slice(0, 200)}`;
}

function refusal(target: string, problem: string): NetworkError {
  return new NetworkError('ERR_INLAY_NETWORK', `${target} does not take all metrics (${problem}); check it.`);
}
