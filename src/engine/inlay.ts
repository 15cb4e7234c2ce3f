import { orAbort } from '../core/abort.ts';
import type { Backend, ModelSource } from '../core/backend.ts';
import { closedError, ModelError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import { nameOf } from '../core/tensor.ts';
import type { Store, StoreInfo } from '../core/store.ts';
import type * as Remote from '../update/remote.ts';
import type { Release, Sync, SyncInfo } from '../update/sync.ts';
import { openSession, type Attempt, type DevicePreference } from './candidates.ts';
import { followReleases } from './follow.ts';
import { createModel, type LoadedVersion, type ManagedModel, type Model } from './model.ts';

/** Where models come from when they are loaded by name. */
export interface SyncOptions {
  /** Base URL of the sync server or of a static copy of its files. */
  readonly url: string;
  /** The `root.json` that `inlay keys init` wrote: the only thing that is trusted in advance. */
  readonly root: string | Uint8Array;
  /** Channel to follow. Default `stable`. */
  readonly channel?: string;
  /** Milliseconds between two polls, spread at random by the client. Default 3,600,000, at least 100. */
  readonly pollMs?: number;
}

/** Options of `createInlay` that are the same on every platform. */
export interface InlayOptions {
  /** Where to run models that do not say so themselves. Default `auto`. */
  readonly device?: DevicePreference;
  /** Threads inside one operator. Default 1. */
  readonly intraOpThreads?: number;
  /** Follow a sync server. Without it only files, URLs and bytes can be loaded. */
  readonly sync?: SyncOptions;
}

/** A model to load: a path, a URL, the bytes, or a name that the sync server knows. */
export type ModelReference = string | URL | Uint8Array | ArrayBuffer | { readonly name: string };

/** Options of {@link Inlay.load}. */
export interface LoadOptions {
  /** Where to run this model. Default: what `createInlay` was given. */
  readonly device?: DevicePreference;
  /** Gives the load up: it rejects with `signal.reason`, and a model that is there nevertheless is closed. */
  readonly signal?: AbortSignal;
}

/** Every decision that Inlay took by itself, with its reason. */
export interface InlayInfo {
  readonly runtime: string;
  readonly store: StoreInfo;
  readonly backends: readonly string[];
  readonly models: readonly {
    readonly name: string | undefined;
    readonly version: string | undefined;
    readonly backend: string;
    readonly provider: string;
    readonly placement: 'inline' | 'worker';
    /** Candidates in the order in which they were tried; the last one was chosen. */
    readonly attempts: readonly Attempt[];
  }[];
  readonly sync: SyncInfo | undefined;
}

/** The inference layer of one app. */
export interface Inlay extends AsyncDisposable {
  /**
   * Loads a model.
   * @throws {@link ModelError} `ERR_INLAY_MODEL_NOT_FOUND`, `_INVALID`, `_UNSUPPORTED`, or `_UNAVAILABLE` for a name
   * of which no version can be had yet; {@link BackendError} when nothing here can run it; {@link NetworkError} when
   * its URL cannot be read.
   */
  load(reference: ModelReference, options?: LoadOptions): Promise<Model>;
  info(): InlayInfo;
  /** Asks the sync server now instead of at the next poll. Rejects with the reason when the check fails. */
  checkForUpdates(): Promise<void>;
  /** Closes all models, then workers and stores that Inlay made itself. Safe to call twice. */
  close(): Promise<void>;
}

/** What an entry point puts together for {@link assembleInlay}. */
export interface InlayParts extends InlayOptions {
  readonly platform: Platform;
  readonly store: Store;
  readonly backends: readonly Backend[];
  /** Loads the part that talks to networks. An app that loads nothing by name or URL never pays for it. */
  readonly remote: () => Promise<typeof Remote>;
  /** What `close()` closes: the parts that the host did not bring. */
  readonly owned: readonly { close(): Promise<void> }[];
}

const MODEL_CAP_BYTES = 2 ** 31;

/** Puts an {@link Inlay} together from its parts. It touches neither disk nor network until something is loaded. */
export function assembleInlay(parts: InlayParts): Inlay {
  const { platform, store, backends } = parts;
  if (parts.sync !== undefined) assertSync(parts.sync);
  const models = new Set<ManagedModel>();
  let starting: Promise<Sync> | undefined;
  let sync: Sync | undefined;
  let closing: Promise<void> | undefined;

  const startSync = async (options: SyncOptions): Promise<Sync> => {
    const { createSync } = await parts.remote();
    sync = createSync({ ...options, platform, store });
    return sync;
  };

  const open = async (
    source: ModelSource,
    version: string | undefined,
    device: DevicePreference = parts.device ?? 'auto',
  ): Promise<LoadedVersion> => {
    const threads = parts.intraOpThreads === undefined ? {} : { intraOpThreads: parts.intraOpThreads };
    return { ...(await openSession(platform, backends, source, device, threads)), version };
  };

  const manage = async (name: string | undefined, loaded: LoadedVersion): Promise<ManagedModel> => {
    if (closing !== undefined) {
      await loaded.session.release();
      throw closedError('This Inlay');
    }
    const managed = createModel(platform, name, loaded);
    models.add(managed);
    void managed.closed.then(() => models.delete(managed));
    return managed;
  };

  const load = async (reference: ModelReference, options: LoadOptions = {}): Promise<Model> => {
    if (closing !== undefined) throw closedError('This Inlay');
    assertReference(reference);
    const { signal } = options;
    signal?.throwIfAborted();
    const loading = isNamed(reference) ? loadByName(reference.name, options) : loadFrom(reference, options);
    return signal === undefined
      ? loading
      : orAbort(loading, signal, (model) => void model.close().catch(() => {}));
  };

  const loadFrom = async (
    reference: Exclude<ModelReference, { readonly name: string }>,
    { device, signal }: LoadOptions,
  ): Promise<Model> => {
    const source = await locate(parts, reference, signal);
    return (await manage(undefined, await open(source, undefined, device))).model;
  };

  const loadByName = async (name: string, options: LoadOptions): Promise<Model> => {
    if (parts.sync === undefined) {
      throw new ModelError(
        'ERR_INLAY_MODEL_UNAVAILABLE',
        `Model "${name}" cannot be loaded by name: createInlay was given no sync server.`,
      );
    }
    const openRelease = ({ blob, version }: Release): Promise<LoadedVersion> =>
      blob.path === undefined
        ? blob.bytes().then((bytes) => open({ bytes }, version, options.device))
        : open({ path: blob.path }, version, options.device);
    return followReleases(await (starting ??= startSync(parts.sync)), name, openRelease, (loaded) =>
      manage(name, loaded),
    );
  };

  const inlay: Inlay = {
    load,
    info: () => ({
      runtime: platform.runtime,
      store: store.info(),
      backends: backends.map((backend) => backend.name),
      models: [...models].map((managed) => {
        const { session, backend, version, attempts } = managed.current();
        const { provider, placement } = session;
        return { name: managed.model.name, version, backend, provider, placement, attempts };
      }),
      sync: sync?.info(),
    }),
    checkForUpdates: async () => {
      if (closing !== undefined) throw closedError('This Inlay');
      if (parts.sync !== undefined) await (await (starting ??= startSync(parts.sync))).check();
    },
    close: () => {
      closing ??= (async () => {
        await (await starting?.catch(() => undefined))?.stop();
        await Promise.all([...models].map(({ model }) => model.close()));
        await Promise.all(parts.owned.map((part) => part.close()));
      })();
      return closing;
    },
    [Symbol.asyncDispose]: () => inlay.close(),
  };
  return inlay;
}

function assertReference(reference: unknown): void {
  const isText = typeof reference === 'string' || reference instanceof URL;
  const isBytes = reference instanceof ArrayBuffer || reference instanceof Uint8Array;
  const isName =
    typeof reference === 'object' &&
    reference !== null &&
    'name' in reference &&
    typeof reference.name === 'string';
  if (isText || isBytes || isName) return;
  throw new TypeError(`A model is a path, a URL, bytes or { name }, got ${nameOf(reference)}.`);
}

function assertSync({ url, root }: SyncOptions): void {
  if (typeof url !== 'string')
    throw new TypeError(`sync.url is the address of a sync server, got ${nameOf(url)}.`);
  if (typeof root === 'string' || root instanceof Uint8Array) return;
  throw new TypeError(
    `sync.root is the text of the root.json that \`inlay keys init\` wrote, got ${nameOf(root)}.`,
  );
}

function isNamed(reference: ModelReference): reference is { readonly name: string } {
  return (
    typeof reference === 'object' &&
    !(reference instanceof URL) &&
    !(reference instanceof ArrayBuffer) &&
    !ArrayBuffer.isView(reference)
  );
}

async function locate(
  { platform, remote }: InlayParts,
  reference: string | URL | Uint8Array | ArrayBuffer,
  signal: AbortSignal | undefined,
): Promise<ModelSource> {
  if (reference instanceof ArrayBuffer) return { bytes: new Uint8Array(reference) };
  if (ArrayBuffer.isView(reference)) return { bytes: reference };
  const { files } = platform;
  if (files === undefined || /^(https?|blob|data):/.test(String(reference))) {
    const { fetchBytes } = await remote();
    const response = await fetchBytes(platform, String(reference), { capBytes: MODEL_CAP_BYTES, signal });
    return { bytes: response.bytes };
  }
  const path = files.resolve(reference);
  if ((await files.size(path)) === undefined) {
    throw new ModelError('ERR_INLAY_MODEL_NOT_FOUND', `There is no model file at ${path}.`, {
      details: { path },
    });
  }
  return { path };
}
