/**
 * The telemetry of one app: counts what its models do, keeps that until the server has it, and tells the server now and
 * then. It never fails, slows or stops what it counts.
 */

import type { Platform } from '../core/platform.ts';
import { fullJitter } from '../core/retry.ts';
import type { Store } from '../core/store.ts';
import { SDK_VERSION } from '../core/version.ts';
import type { UpdateEvent } from '../update/events.ts';
import { classOf } from './device-class.ts';
import { openHistory } from './history.ts';
import { createModelTelemetry, type ModelTelemetry, type ReportedModel } from './model.ts';
import { assertConsent, assertTelemetry, type TelemetryOptions, type TelemetryState } from './options.ts';
import { MAX_BEACON_BYTES, type Consent, type ReportWindow } from './report.ts';
import { createSender, split, type Sent } from './sender.ts';
import { addLosses, windowsOf, type Losses, type ReportHead } from './spool-record.ts';
import { createSpool } from './spool.ts';
import { joinWindows, necessaryOnly } from './window-join.ts';
import { createWindows } from './windows.ts';

/** What {@link openTelemetry} works with. */
export interface TelemetryParts extends TelemetryOptions {
  readonly platform: Platform;
  readonly store: Pick<Store, 'readRecord' | 'updateRecord'>;
  /** Base URL of the server. */
  readonly url: string;
  /** Channel that the device follows. */
  readonly channel: string;
  /** What models run on now, `webgpu` or `cpu`, say. */
  readonly provider: () => string | undefined;
}

/** The telemetry of one app. */
export interface TelemetryClient {
  /** The telemetry of a model; the first call makes it. */
  model(name: string): ModelTelemetry;
  /** Hears what is written down about updates. */
  updated(event: UpdateEvent): void;
  consent(): Consent;
  setConsent(consent: Consent): Promise<void>;
  flush(): Promise<void>;
  state(): Promise<TelemetryState>;
  event(name: string, value: number): void;
  /** Keeps what was counted, and sends it if that takes no longer than two seconds. Safe to call twice. */
  close(): Promise<void>;
}

/** How often counts are written down, milliseconds: a crash loses no more than that. */
const JOURNAL_MS = 30_000;
/** Milliseconds between two reports by default. */
const EVERY_MS = 900_000;
/** Bounds of the wait after a failure, milliseconds. */
const RETRY_MS = { base: 5000, cap: 3_600_000 };
/** How long an activation or `close` waits for the network, milliseconds. */
const PATIENCE_MS = 2000;

/**
 * Opens the telemetry of one app. Without consent it reads and writes nothing.
 * @throws `TypeError` or `RangeError` for options that make no sense.
 */
export async function openTelemetry(parts: TelemetryParts): Promise<TelemetryClient> {
  assertTelemetry(parts);
  const { platform, sample = 1, epsilon } = parts;
  const windows = createWindows(platform);
  const spool = createSpool({ platform, store: parts.store, join: joinWindows });
  const history = openHistory(parts.store);
  const models = new Map<string, ReportedModel>();
  let consent: Consent = parts.consent ?? 'unset';
  const sender = createSender({
    platform,
    url: parts.url.replace(/\/+$/, ''),
    key: parts.key,
    mayReport: () => consent !== 'unset',
  });
  let nextMs: number | undefined;
  let failures = 0;
  /** Least wait after a failure. */
  let floorMs = 0;
  let sent = 0;
  let dropped = 0;
  let lastError: unknown;
  let isOver = false;
  /** Whether models were called in the last piece of time. */
  let isBusy = false;
  /** Processor time up to the last measurement. */
  let processorMs = platform.processorMs?.() ?? 0;
  let cancelJournal = (): void => {};
  let cancelReport = (): void => {};
  let forgetHide = (): void => {};
  let reporting: Promise<void> | undefined;
  let closing: Promise<void> | undefined;

  const guard = async (task: () => Promise<unknown>): Promise<boolean> => {
    try {
      await task();
      return true;
    } catch (error) {
      lastError = error;
      return false;
    }
  };

  /** Takes what was counted since the last time. */
  const take = (): readonly ReportWindow[] => {
    const cut = windows.cut();
    if (consent === 'unset') return [];
    history.note(cut);
    return consent === 'full' ? cut : cut.map(necessaryOnly);
  };

  /** An app that does nothing is measured with each report only: writes wake disks. */
  const measure = (): void => {
    const bytes = platform.memoryBytes?.();
    const before = processorMs;
    processorMs = platform.processorMs?.() ?? 0;
    for (const { recorder } of models.values()) {
      if (bytes !== undefined) recorder.memory(bytes);
      // Nobody can tell who took it; shares add up to all of it.
      recorder.processor((processorMs - before) / models.size);
    }
  };

  const journal = async (): Promise<boolean> => {
    if (isBusy) measure();
    const cut = take();
    isBusy = cut.some(({ n }) => n > 0);
    if (consent === 'unset') return false;
    const isKept = await guard(() => spool.journal(cut));
    await history.save();
    return isKept;
  };

  const headOf = (dev: string): ReportHead => {
    const { runtime, traits, cores } = platform;
    const isPage = runtime.startsWith('web');
    const rt = isPage ? 'browser' : runtime.toLowerCase().replace(/[^a-z0-9]+/g, '-');
    const provider = parts
      .provider()
      ?.replace(/[^\w.-]+/g, '-')
      .slice(0, 32);
    return {
      app: parts.channel,
      dev,
      sdk: `inlay/${SDK_VERSION}`,
      rt,
      ...(provider !== undefined && { be: provider }),
      cls: classOf({ ...traits, runtime, cores, provider }),
      consent: consent === 'full' ? 'full' : 'necessary',
      ...(sample < 1 && { samp: sample }),
      ...(epsilon !== undefined && { eps: epsilon }),
    };
  };

  /** Forgets what the server has, and what it will never take. */
  const settle = async ({ done, refused, next, failure }: Sent): Promise<void> => {
    const gone = [...done, ...refused];
    const waiting = spool.sealed();
    let drop: Losses = {};
    for (const { epoch, seq, code } of refused) {
      const report = waiting.find((one) => one.epoch === epoch && one.seq === seq);
      const spans = report === undefined ? 0 : windowsOf(report).length;
      drop = addLosses(drop, { [code]: spans });
      dropped += spans;
    }
    sent += done.length;
    await guard(async () => {
      if (gone.length > 0) await spool.acknowledge(gone, drop);
    });
    if (failure === undefined) nextMs = next === undefined ? undefined : next * 1000;
  };

  const reportOnce = async (isLeaving: boolean): Promise<void> => {
    measure();
    if (!(await journal())) return;
    // Where nothing can be sent, what is open goes on growing together, and loses no count.
    const isStuck = failures > 0 && spool.sealed().length > 0;
    if (!isStuck && !(await guard(() => spool.seal(headOf)))) return;
    if (consent === 'unset') return;
    const waiting = spool.sealed();
    if (waiting.length === 0) return;
    const outcome = isLeaving
      ? await sender.send(split(waiting, MAX_BEACON_BYTES)[0] ?? [], MAX_BEACON_BYTES, true)
      : await sender.send(waiting);
    await settle(outcome);
    const { failure } = outcome;
    failures = failure === undefined ? 0 : failures + 1;
    lastError = failure === undefined ? undefined : new Error(failure.message);
    floorMs = failure?.retryAfterMs ?? 0;
  };

  /** One report at a time; whoever asks meanwhile gets another one after it. */
  const report = (isLeaving = false): Promise<void> => {
    const before = reporting ?? Promise.resolve();
    const mine = before
      .then(() => guard(() => reportOnce(isLeaving)))
      .then(() => {
        plan();
        if (reporting === mine) reporting = undefined;
      });
    reporting = mine;
    return mine;
  };

  const periodMs = (): number => {
    const wishes = [...models.values()].flatMap((model) => model.rules().everyMs ?? []);
    return Math.max(Math.min(parts.everyMs ?? EVERY_MS, ...wishes), nextMs ?? 0);
  };

  /** Plans the next report: devices spread out over the period, each at its own place in it. */
  const plan = (): void => {
    cancelReport();
    if (consent === 'unset' || isOver) return;
    const period = periodMs();
    let delayMs = period - ((platform.now() + phaseOf(spool.dev() ?? '') * period) % period);
    if (failures > 0) {
      delayMs = Math.max(
        floorMs * (1 + 0.1 * platform.random()),
        fullJitter(platform, failures - 1, RETRY_MS.base, RETRY_MS.cap),
      );
    }
    cancelReport = platform.setTimer(() => void report(), delayMs);
  };

  const keepJournal = (): void => {
    cancelJournal = platform.setTimer(() => {
      void journal();
      keepJournal();
    }, JOURNAL_MS);
  };

  /** Waits for a task, and no longer than is bearable. */
  const atMost = (task: Promise<void>): Promise<void> =>
    new Promise((resolve) => {
      const cancel = platform.setTimer(resolve, PATIENCE_MS, true);
      void task.finally(() => {
        cancel();
        resolve();
      });
    });

  const sendForgets = async (): Promise<void> => {
    for (const dev of await spool.toForget()) if (await sender.forget(dev)) await spool.forgotten(dev);
  };

  const start = async (): Promise<void> => {
    if (consent === 'unset' || isOver) return;
    await history.read();
    keepJournal();
    forgetHide =
      platform.onHide?.(() => {
        // It may wait for a request that is under way; what was counted need not.
        void journal();
        void report(true);
      }) ?? forgetHide;
    void guard(() => spool.open()).then(plan);
  };

  const stop = (): void => {
    cancelJournal();
    cancelReport();
    forgetHide();
  };

  void guard(sendForgets);
  await start();

  return {
    model: (name) => {
      const known = models.get(name);
      if (known !== undefined) return known;
      const created = createModelTelemetry({
        model: name,
        windows,
        platform,
        history,
        consent: () => consent,
        sample: () => sample,
        epsilon: () => epsilon,
        settle: () => {
          const cut = take();
          if (cut.length > 0) void guard(() => spool.journal(cut));
        },
        report: () => (consent === 'unset' || isOver ? Promise.resolve() : atMost(report())),
        onRules: () => {
          if (failures === 0) plan();
        },
      });
      models.set(name, created);
      return created;
    },
    updated: (event) => {
      models.get(event.model)?.updated(event);
    },
    consent: () => consent,
    setConsent: async (next) => {
      assertConsent(next);
      const before = consent;
      if (next === 'unset') {
        consent = next;
        stop();
        await atMost(reporting ?? Promise.resolve());
        windows.cut();
        await spool.wipe();
        await history.wipe();
        await guard(sendForgets);
        return;
      }
      if (next === before) return;
      if (before === 'unset') {
        // What was counted before nobody had agreed to.
        windows.cut();
        consent = next;
        await start();
        return;
      }
      const cut = take();
      consent = next;
      await guard(async () => {
        await spool.journal(cut);
        if (next === 'necessary') await spool.strip(necessaryOnly);
      });
    },
    flush: async () => {
      if (consent === 'unset') return;
      failures = 0;
      await report();
    },
    state: async () => ({
      consent,
      queued: spool.sealed().length,
      open: spool.waiting(),
      sent,
      dropped,
      lastError: lastError instanceof Error ? lastError.message : undefined,
      device: spool.dev(),
    }),
    event: (name, value) => {
      for (const { recorder } of models.values()) recorder.event(name, value);
    },
    close: () => {
      closing ??= (async () => {
        stop();
        isOver = true;
        if (consent === 'unset') return;
        await atMost(report());
        await guard(() => spool.close());
      })();
      return closing;
    },
  };
}

/** Place of a device in a period, in [0, 1): FNV-1a of its name (32 bits). */
function phaseOf(dev: string): number {
  let hash = 0x811c9dc5;
  for (let at = 0; at < dev.length; at += 1) hash = Math.imul(hash ^ dev.charCodeAt(at), 0x01000193);
  return (hash >>> 0) / 2 ** 32;
}
