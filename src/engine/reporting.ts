import type { Platform } from '../core/platform.ts';
import type { Store } from '../core/store.ts';
import type { TelemetryClient } from '../telemetry/client.ts';
import type { TelemetryOptions, TelemetryState } from '../telemetry/options.ts';
import type { Consent } from '../telemetry/report.ts';

/** What an app tells the fleet, and whether it may. Without `telemetry` in the options, nothing is ever told. */
export interface Telemetry {
  consent(): Consent;
  /**
   * Changes what people have agreed to. `unset` deletes what is kept, and asks the server to forget this installation.
   * @throws `TypeError` for another word; {@link StoreError} when it cannot be deleted.
   */
  setConsent(consent: Consent): Promise<void>;
  /** Reports now instead of at the next time. What goes wrong is in the state. */
  flush(): Promise<void>;
  /** @returns `undefined` without telemetry. */
  state(): Promise<TelemetryState | undefined>;
  /** Counts something that happened in the app, for all models that are loaded by name; with `full` consent only. */
  event(name: string, value?: number): void;
}

/** What {@link createReporting} works with. */
export interface ReportingParts {
  readonly platform: Platform;
  readonly store: Store;
  readonly telemetry?: TelemetryOptions | undefined;
  readonly sync?: { readonly url: string; readonly channel?: string } | undefined;
  /** What models run on now. */
  readonly provider: () => string | undefined;
  readonly onError: (error: unknown) => void;
}

/** The telemetry of an app that may have none. */
export interface Reporting {
  readonly telemetry: Telemetry;
  /** Loads it. @returns `undefined` where there is none, or where its code cannot be had: nothing else depends on it. */
  open(): Promise<TelemetryClient | undefined>;
  close(): Promise<void>;
}

/** Creates it; nothing is loaded before it is needed. */
export function createReporting(parts: ReportingParts): Reporting {
  const { telemetry: options, sync } = parts;
  let consent: Consent = options?.consent ?? 'unset';
  let client: TelemetryClient | undefined;
  let opening: Promise<TelemetryClient | undefined> | undefined;

  const load = async (): Promise<TelemetryClient | undefined> => {
    if (options === undefined || options.enabled === false || sync === undefined) return undefined;
    const code = await import('../telemetry/client.ts').catch((error: unknown) => {
      parts.onError(error);
      opening = undefined;
    });
    const { url = sync.url } = options;
    const { channel = 'stable' } = sync;
    client = await code?.openTelemetry({ ...parts, ...options, url, channel, consent });
    return client;
  };
  const open = (): Promise<TelemetryClient | undefined> => (opening ??= load());

  return {
    open,
    telemetry: {
      consent: () => client?.consent() ?? consent,
      setConsent: async (next) => {
        await (await open())?.setConsent(next);
        consent = next;
      },
      flush: async () => (await open())?.flush(),
      state: async () => (await open())?.state(),
      event: (name, value = 1) => client?.event(name, value),
    },
    close: async () => (await opening?.catch(() => undefined))?.close(),
  };
}
