/** Brings one release at a time, beside everything else: what is decided meanwhile need not wait. */

import type { Platform } from '../core/platform.ts';
import type { NewUpdateEvent } from './events.ts';
import { failureOf, faultOf, type Fault } from './fault.ts';
import type { PlanEntry } from './plan.ts';
import type { ResolvedPlan } from './resolve.ts';
import { bring, type ShipmentParts } from './shipment.ts';
import { neededBlobs, type Slot } from './slot.ts';
import { rejectionOf } from './slots-rejections.ts';
import type { Slots } from './slots.ts';
import type { Sync } from './sync.ts';
import type { DownloadListener } from './transfer.ts';

/** What {@link createFetcher} works with. */
export interface FetcherParts extends Omit<ShipmentParts, 'target' | 'isUnfit' | 'isUpdate'> {
  readonly platform: Pick<Platform, 'monotonicMs'>;
  readonly sync: Sync;
  readonly log: (event: Omit<NewUpdateEvent, 'model'>) => void;
  readonly onProgress: DownloadListener;
  /** Where it says which files did not prove themselves on this device. */
  readonly slots: Pick<Slots, 'read' | 'context'>;
  /** Called before the first byte. */
  readonly onBegin: (entry: PlanEntry) => Promise<void>;
  /** Takes what has come. Where it throws, the release counts as not brought. */
  readonly onArrived: (slot: Slot, plan: ResolvedPlan) => Promise<void>;
  /** @returns whether something else may be wanted now. */
  readonly onFailed: (entry: PlanEntry, plan: ResolvedPlan, error: unknown, fault: Fault) => Promise<boolean>;
  /** Called when one is over, and whether there may be something to do now. */
  readonly onEnded: (mayGoOn: boolean) => void;
}

/** Brings releases. */
export interface Fetcher {
  /**
   * Begins with a release, in place of another one; one that is under way goes on. One that was brought already, and is
   * wanted again, is brought again only if its file was rejected: a store that forgets is not filled again and again.
   */
  begin(entry: PlanEntry, plan: ResolvedPlan): void;
  /** Forgets what was brought already. */
  forgive(): void;
  /** Gives up what is under way. What is there of it stays for the next time. */
  stop(): void;
  /** Resolves when what is under way is over, with whether there may be something to do now; `undefined` for nothing. */
  underway(): Promise<boolean> | undefined;
}

/** Creates the fetcher of one model. */
export function createFetcher(parts: FetcherParts): Fetcher {
  const { platform, sync, slots, log } = parts;
  let current:
    | { readonly sha256: string; readonly cancel: AbortController; readonly done: Promise<boolean> }
    | undefined;
  /** SHA-256 of the files that were brought, by the path of their release. */
  const brought = new Map<string, string>();

  /** @returns whether it was brought. */
  const fetch = async (entry: PlanEntry, plan: ResolvedPlan, signal: AbortSignal): Promise<boolean> => {
    const { path, version, sha256, length } = entry;
    const isUnfit = async (file: string): Promise<boolean> =>
      rejectionOf(await slots.read(), file, slots.context(), plan.retryNonce) !== undefined;
    const last = brought.get(path);
    if (last !== undefined && !(await isUnfit(last))) return false;
    await parts.onBegin(entry);
    log({ type: 'download-started', version, sha256, bytes: length });
    const began = platform.monotonicMs();
    const isUpdate = neededBlobs(await slots.read()).length > 0;
    const shipped = await bring(
      { ...parts, target: (name) => sync.target(name), isUnfit, isUpdate },
      entry,
      plan.net,
      signal,
      parts.onProgress,
    );
    const ms = Math.round(platform.monotonicMs() - began);
    log({ type: 'verified', version, sha256: shipped.slot.file.sha256, reason: shipped.way, ms });
    brought.set(path, shipped.slot.file.sha256);
    await parts.onArrived(shipped.slot, plan);
    return true;
  };

  return {
    begin: (entry, plan) => {
      if (current?.sha256 === entry.sha256 && !current.cancel.signal.aborted) return;
      current?.cancel.abort();
      const cancel = new AbortController();
      const { signal } = cancel;
      const task = sync
        .run(() => fetch(entry, plan, signal))
        .catch(async (error: unknown) => {
          if (signal.aborted) return false;
          log({ type: 'error', version: entry.version, sha256: entry.sha256, ...failureOf(error) });
          return parts.onFailed(entry, plan, error, faultOf(error));
        });
      const done = task.then((mayGoOn) => {
        if (current === mine) current = undefined;
        parts.onEnded(mayGoOn);
        return mayGoOn;
      });
      const mine = { sha256: entry.sha256, cancel, done };
      current = mine;
    },
    forgive: () => {
      brought.clear();
    },
    stop: () => {
      current?.cancel.abort();
    },
    underway: () => current?.done,
  };
}
