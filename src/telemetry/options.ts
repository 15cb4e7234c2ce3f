/** What an app says of telemetry. */

import { nameOf } from '../core/tensor.ts';
import type { Consent } from './report.ts';

/** Options of telemetry. Nothing is counted before there is consent. */
export interface TelemetryOptions {
  /**
   * What people have agreed to, as far as the app knows; it keeps that itself. Default `unset`: nothing is stored or sent.
   */
  readonly consent?: Consent;
  /** Base URL of the server that takes reports. Default: the sync server. */
  readonly url?: string;
  /** Key with the role `device`, where the server asks for one. It is public: everybody has the app. */
  readonly key?: string;
  /** Milliseconds between two reports, unless a rollout or the server asks for others. Default 900,000, at least 1000. */
  readonly everyMs?: number;
  /** Share of calls whose inputs and outputs are counted, in (0, 1]. Calls, failures and times always are. Default 1. */
  readonly sample?: number;
  /** Local privacy (ε) of the counts of inputs, above 0; see `response.ts`. Default: none is added. */
  readonly epsilon?: number;
  /** Default true. */
  readonly enabled?: boolean;
}

/** What the telemetry of an app is at. */
export interface TelemetryState {
  readonly consent: Consent;
  /** Reports that wait for the server, and spans of counting that are in none yet. */
  readonly queued: number;
  readonly open: number;
  /** Reports that this run has brought to the server. */
  readonly sent: number;
  /** Spans of counting that the server has refused in this run. */
  readonly dropped: number;
  /** Why nothing could be kept or sent the last time; `undefined` if it could. */
  readonly lastError: string | undefined;
  /** Random name of this installation for telemetry; `undefined` while nothing is kept. */
  readonly device: string | undefined;
}

/** Consent in words, from the least to the most. */
const CONSENTS: readonly Consent[] = ['unset', 'necessary', 'full'];

/** @throws `TypeError` for a consent that there is not. */
export function assertConsent(consent: Consent): void {
  if (CONSENTS.includes(consent)) return;
  throw new TypeError(
    `consent is one of ${CONSENTS.map((one) => `'${one}'`).join(', ')}, got ${JSON.stringify(consent)}.`,
  );
}

/** @throws `TypeError` or `RangeError` for options that make no sense. */
export function assertTelemetry({
  consent = 'unset',
  url,
  key,
  everyMs,
  sample,
  epsilon,
}: TelemetryOptions): void {
  assertConsent(consent);
  if (url !== undefined && !(typeof url === 'string' && /^(https?:\/\/[^/]|\/)/.test(url)))
    throw new TypeError(`telemetry.url is an http or https URL, got ${JSON.stringify(url)}.`);
  if (key !== undefined && typeof key !== 'string')
    throw new TypeError(`telemetry.key is the text of a key, got ${nameOf(key)}.`);
  if (everyMs !== undefined && !(everyMs >= 1000 && everyMs < 2 ** 31))
    throw new RangeError(`telemetry.everyMs is 1000 to 2147483647 milliseconds, got ${everyMs}.`);
  if (sample !== undefined && !(sample > 0 && sample <= 1))
    throw new RangeError(`telemetry.sample is a number above 0 and up to 1, got ${sample}.`);
  if (epsilon !== undefined && !(epsilon > 0 && epsilon <= 32))
    throw new RangeError(`telemetry.epsilon is a number above 0 and up to 32, got ${epsilon}.`);
}
