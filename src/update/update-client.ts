/** Everything that one app does about updates: one channel, its downloads, its log, and an updater for each model. */

import type { ExecutionProvider } from '../core/backend.ts';
import type { Platform } from '../core/platform.ts';
import type { Store } from '../core/store.ts';
import { SDK_VERSION } from '../core/version.ts';
import { createAnchors } from './anchors.ts';
import { createDeltaPatcher } from './delta/patcher.ts';
import { openEventLog, type EventLog, type UpdateEvent } from './events.ts';
import type { Patcher } from './patcher.ts';
import type { Install } from './plan.ts';
import type { UpdateObserver } from './role.ts';
import { openSlots } from './slots.ts';
import { installId } from './state.ts';
import { createSync, type SyncInfo, type SyncParts } from './sync.ts';
import type { DownloadPolicy } from './transfer-policy.ts';
import { createTransfers, type TransferState } from './transfer.ts';
import type { Activation, Target, Updater, UpdaterState } from './follower.ts';
import { createUpdater } from './updater.ts';

/** How an app wants to be updated. */
export interface UpdatePolicy {
  /**
   * When a release that is there begins to answer calls.
   * - `now`, the default: as soon as it has proved itself beside the present one.
   * - `idle`: when the model has not been called for two seconds.
   * - `next-start`: with the next start of the app.
   * - `manual`: when the app calls `inlay.updates.activate(name)`.
   *
   * Where nothing runs yet, the first release begins at once; a release that has to be left is left at once.
   */
  readonly activate?: Activation | undefined;
  /** When releases may be downloaded, besides what a rollout asks for. Default: at any time. */
  readonly download?: DownloadPolicy | undefined;
  /**
   * Whether the file that rounded releases go by is kept, so that patches stay small: up to the size of one more model,
   * given up when there is no room for a release. Default true.
   */
  readonly keepAnchor?: boolean | undefined;
}

/** What an app says about itself, for the rules of rollouts. None of it leaves the device. */
export interface AppFacts {
  /** `major.minor.patch`. */
  readonly version?: string | undefined;
  /** What else rules may ask for: `{ site: 'vienna' }`. */
  readonly attributes?: Readonly<Record<string, string>> | undefined;
}

/** Options of {@link createUpdateClient}. */
export interface UpdateClientParts extends Omit<SyncParts, 'onError'> {
  readonly platform: Platform;
  readonly store: Store;
  readonly policy?: UpdatePolicy | undefined;
  readonly app?: AppFacts | undefined;
  /** Bytes of the largest file that is downloaded. */
  readonly maxModelBytes: number;
  /** What applies patches. Default: Inlay's own format. */
  readonly patchers?: readonly Patcher[] | undefined;
  /** Execution providers of this device. */
  readonly providers: () => Promise<readonly ExecutionProvider[]>;
  /** Tries a release where it can do no harm. @throws when it does not work there. */
  readonly prove: (target: Target) => Promise<void>;
  /** Finds what hears of the releases of a model. */
  readonly observe?: ((model: string) => UpdateObserver) | undefined;
  /** Hears of what goes wrong without harm. */
  readonly onError: (error: unknown) => void;
}

/** What all updates of an app are at. */
export interface UpdatesState {
  /** Random identifier of this installation, which `rollout set --allow` takes; `undefined` where none can be kept. */
  readonly installId: string | undefined;
  readonly sync: SyncInfo;
  /** Downloads under way. */
  readonly transfers: readonly TransferState[];
  /** Models that were loaded by name. */
  readonly models: Readonly<Record<string, UpdaterState>>;
}

/** The updates of one app. */
export interface UpdateClient {
  /** The updater of a model; the first call makes it. */
  updater(model: string): Updater;
  check(): Promise<void>;
  info(): SyncInfo;
  state(): Promise<UpdatesState>;
  /** Holds polls and downloads; what runs is not touched. */
  pause(): void;
  resume(): void;
  history(): Promise<readonly UpdateEvent[]>;
  onEvent(listener: (event: UpdateEvent) => void): () => void;
  /** Ends everything under way, and says that what ran was left in good order. Safe to call twice. */
  close(): Promise<void>;
}

/**
 * Creates the updates of one app. Nothing happens before one of its methods is called.
 * @throws `TypeError` or `RangeError` for malformed options.
 */
export function createUpdateClient(parts: UpdateClientParts): UpdateClient {
  const { platform, store, policy = {}, app = {}, onError } = parts;
  assertPolicy(policy);
  const updaters = new Map<string, Updater>();
  const observers = new Map<string, UpdateObserver>();
  /** What ends listening to whether people see the app. */
  const forgets: (() => void)[] = [];
  const sync = createSync(parts);
  const events: EventLog = openEventLog({ store, platform, onListenerError: onError });
  const anchors = createAnchors({ store, owner: sync.owner, events, isKept: policy.keepAnchor !== false });
  let bytes = 0;
  const transfers = createTransfers({
    platform,
    store,
    url: sync.url,
    patchers: parts.patchers ?? [createDeltaPatcher(platform)],
    policy: policy.download,
    signal: sync.signal,
    spare: (base) => anchors.release(base),
    onBytes: (count, { path }) => {
      bytes += count;
      observers.get(modelOf(path))?.received(count);
    },
    onFallback: ({ path, sha256 }, { way, reason, error }) => {
      const detail = error instanceof Error ? ` ${error.message}` : '';
      events.add({
        model: modelOf(path),
        type: 'way-failed',
        sha256,
        reason,
        detail: `${way.path}.${detail}`,
        bytes: way.length,
      });
    },
  });
  let install: Promise<Install> | undefined;
  const describe = async (): Promise<Install> => ({
    ...platform.traits,
    id: await installId(platform, store),
    runtime: platform.runtime,
    sdk: SDK_VERSION,
    ...(app.version !== undefined && { app: app.version }),
    ...(app.attributes !== undefined && { attributes: app.attributes }),
  });
  const open = (model: string): Updater => {
    const slots = openSlots({
      store,
      owner: sync.owner,
      model,
      platform,
      sdk: SDK_VERSION,
      app: app.version,
      events,
    });
    const forget = platform.onHide?.(() => void slots.hidden().catch(() => {}));
    if (forget !== undefined) forgets.push(forget);
    const observer = parts.observe?.(model);
    if (observer !== undefined) observers.set(model, observer);
    const updater = createUpdater({
      model,
      platform,
      store,
      sync,
      events,
      anchors,
      transfers,
      slots,
      install: () =>
        (install ??= describe().catch((error: unknown) => {
          install = undefined;
          throw error;
        })),
      activation: policy.activate ?? 'now',
      maxModelBytes: parts.maxModelBytes,
      providers: parts.providers,
      prove: parts.prove,
      observer,
    });
    updaters.set(model, updater);
    return updater;
  };
  const info = (): SyncInfo => {
    const known = sync.info();
    return { ...known, bytesDownloaded: known.bytesDownloaded + bytes };
  };
  let closing: Promise<void> | undefined;
  const closeAll = async (): Promise<void> => {
    for (const forget of forgets) forget();
    // Marks are written before the store may go.
    await Promise.allSettled([...updaters.values()].map((updater) => updater.close()));
    await sync.stop();
    await transfers.settled();
    await events.close();
  };
  return {
    updater: (model) => updaters.get(model) ?? open(model),
    check: () => sync.check(),
    info,
    state: async () => ({
      installId: await installId(platform, store).catch(() => undefined),
      sync: info(),
      transfers: transfers.list(),
      models: Object.fromEntries(
        await Promise.all(
          [...updaters].map(async ([model, updater]) => [model, await updater.state()] as const),
        ),
      ),
    }),
    pause: () => {
      sync.pause();
      transfers.pause();
    },
    resume: () => {
      sync.resume();
      transfers.resume();
    },
    history: () => events.history(),
    onEvent: (listener) => events.subscribe(listener),
    close: () => (closing ??= closeAll()),
  };
}

/** Files of releases are all at `models/<model>/<seq>/<file>`. */
function modelOf(path: string): string {
  return path.split('/')[1] ?? '';
}

const ACTIVATIONS: readonly Activation[] = ['now', 'idle', 'next-start', 'manual'];

function assertPolicy({ activate = 'now' }: UpdatePolicy): void {
  if (ACTIVATIONS.includes(activate)) return;
  throw new TypeError(
    `sync.policy.activate is one of ${ACTIVATIONS.map((one) => `'${one}'`).join(', ')}, got ${JSON.stringify(activate)}.`,
  );
}
