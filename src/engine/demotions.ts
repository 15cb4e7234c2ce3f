/** Execution providers that broke down too often on this device: not to be tried again for a while. */
import { fromUtf8, toUtf8 } from '../core/bytes.ts';
import { isInlayError } from '../core/errors.ts';
import type { Logger } from '../core/logger.ts';
import type { Platform } from '../core/platform.ts';
import type { Store } from '../core/store.ts';

/** What is known of the providers of this device. */
export interface Demotions {
  /** Reads what earlier runs of the app have written down; once. */
  read(): Promise<void>;
  /** Why a provider is not to be tried, in words; `undefined` if it may be. */
  refusal(backend: string, provider: string): string | undefined;
  /**
   * Counts a breakdown of a provider. Those that are the device's fault demote it; others, such as a library that cannot
   * be loaded while the network is away, only send the session that asks elsewhere.
   * @returns the reason if this was one too many, or if it has been demoted before.
   */
  count(backend: string, provider: string, error: Error): string | undefined;
}

interface Demotion {
  readonly reason: string;
  /** Wall clock, milliseconds since 1970. */
  readonly until: number;
}

/** Breakdowns within {@link WITHIN_MS} that demote a provider. */
const TOO_MANY = 3;
const WITHIN_MS = 600_000;
/** Several sessions notice one breakdown, in milliseconds. */
const SAME_MS = 100;
/** A week: drivers and browsers are mended. */
const REST_MS = 7 * 86_400_000;
const RECORD = 'demotions';

/** Opens what is known. A store that cannot take it loses nothing but the memory of it. */
export function createDemotions(parts: {
  readonly platform: Platform;
  readonly store: Store;
  readonly logger: Logger;
}): Demotions {
  const { platform, store, logger } = parts;
  const device = platform.hardware ?? platform.runtime;
  const breakdowns = new Map<string, number[]>();
  const demoted = new Map<string, Demotion>();
  let reading: Promise<void> | undefined;

  const keyOf = (backend: string, provider: string): string => `${device} ${backend} ${provider}`;
  const write = (key: string, demotion: Demotion): void => {
    store
      .updateRecord(RECORD, (present) => {
        const now = platform.now();
        const kept = Object.entries(parse(present)).filter(([, { until }]) => until > now);
        return toUtf8(JSON.stringify({ ...Object.fromEntries(kept), [key]: demotion }));
      })
      .catch((error: unknown) => {
        logger.debug({ err: error }, 'A demotion could not be kept.');
      });
  };
  const refusal = (backend: string, provider: string): string | undefined => {
    const demotion = demoted.get(keyOf(backend, provider));
    return demotion && demotion.until > platform.now() ? demotion.reason : undefined;
  };

  return {
    read: () =>
      (reading ??= store
        .readRecord(RECORD)
        .then((text) => {
          for (const [key, demotion] of Object.entries(parse(text))) demoted.set(key, demotion);
        })
        .catch(() => {})),
    refusal,
    count: (backend, provider, error) => {
      const isItsFault = isFaultOfDevice(error);
      const key = keyOf(backend, provider);
      const counted = isItsFault ? key : `${key} otherwise`;
      const known = refusal(backend, provider);
      if (known !== undefined) return known;
      const now = platform.now();
      const recent = (breakdowns.get(counted) ?? []).filter((at) => now - at < WITHIN_MS);
      if (now - (recent.at(-1) ?? -Infinity) >= SAME_MS) recent.push(now);
      breakdowns.set(counted, recent);
      if (recent.length < TOO_MANY) return undefined;
      const reason = `it broke down ${TOO_MANY} times in ten minutes, lastly: ${error.message}`;
      breakdowns.delete(counted);
      if (!isItsFault) return reason;
      const demotion = { reason, until: now + REST_MS };
      demoted.set(key, demotion);
      write(key, demotion);
      logger.warn({ backend, provider, err: error }, 'An execution provider is left alone for a week.');
      return reason;
    },
  };
}

/** Whether the device was lost, or what ran on it died or hung; not that it could not be opened again, or was ended. */
function isFaultOfDevice(error: Error): boolean {
  if (!isInlayError(error)) return false;
  const { reason, losses } = error.details;
  if (error.code === 'ERR_INLAY_DEVICE_UNAVAILABLE') return reason !== undefined;
  return (
    error.code === 'ERR_INLAY_WORKER_LOST' && losses === undefined && (reason === 'exit' || reason === 'hung')
  );
}

/** Reads the record. Whatever does not look right is forgotten. */
function parse(text: Uint8Array | undefined): Readonly<Record<string, Demotion>> {
  try {
    const all = JSON.parse(text === undefined ? '{}' : fromUtf8(text)) as Readonly<
      Record<string, Partial<Demotion> | null>
    >;
    return Object.fromEntries(
      Object.entries(all).flatMap(([key, demotion]) =>
        typeof demotion?.reason === 'string' && typeof demotion.until === 'number'
          ? [[key, { reason: demotion.reason, until: demotion.until }]]
          : [],
      ),
    );
  } catch {
    return {};
  }
}
