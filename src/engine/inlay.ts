import { assertNotAborted, orAbort } from '../core/abort.ts';
import type { Backend, ModelSource, Placement } from '../core/backend.ts';
import { closedError, ModelError } from '../core/errors.ts';
import type { Logger } from '../core/logger.ts';
import type { Platform } from '../core/platform.ts';
import { nameOf } from '../core/tensor.ts';
import type { Store, StoreInfo } from '../core/store.ts';
import type { Tracing } from '../core/tracing.ts';
import type { PredictionsOptions, PredictionsStats } from '../schedule/predictions.ts';
import type { TelemetryOptions } from '../telemetry/options.ts';
import type * as Remote from '../update/remote.ts';
import type { SyncInfo } from '../update/sync.ts';
import type { AppFacts, UpdateClient, UpdatePolicy } from '../update/update-client.ts';
import type { DevicePreference } from './candidates.ts';
import type { ManagedModel, Model, ModelParts, RunOptions } from './model.ts';
import { createLoadListener, type ProgressListener } from './progress.ts';
import type * as Pipelines from './pipeline.ts';
import type { PipelineDefinition, PipelineInputs, PipelineOutputs } from './pipeline-definition.ts';
import {
  assertReference,
  isFile,
  locate,
  type FileReference,
  type ModelReference,
  type NamedReference,
  type VariantsReference,
} from './reference.ts';
import type { SchedulingOptions } from './scheduling-options.ts';
import type { ModelTypes } from './typed.ts';
import type { Serving, ServingInfo } from './serving.ts';
import { createReporting, type Telemetry } from './reporting.ts';
import { createUpdates, type Updates } from './updates.ts';
import type * as Engine from './machine.ts';

/** Where models come from when they are loaded by name. */
export interface SyncOptions {
  /** Base URL of the sync server or of a static copy of its files. */
  readonly url: string;
  /** The `root.json` that `inlay keys init` wrote, as text, bytes or the parsed object: all that is trusted in advance. */
  readonly root: string | Uint8Array | object;
  /** Channel to follow. Default `stable`. */
  readonly channel?: string;
  /** Milliseconds between two polls, spread at random by the client. Default 3,600,000, at least 100. */
  readonly pollMs?: number;
  /** When to download, and when a new release begins to answer. Default: at once. */
  readonly policy?: UpdatePolicy;
  /** What rollouts may ask about the app. */
  readonly app?: AppFacts;
}

/** Options of `createInlay` that are the same on every platform. */
export interface InlayOptions {
  /** Where to run models that do not say so themselves. Default `auto`. */
  readonly device?: DevicePreference;
  /**
   * Threads inside one operator. Default 1: several workers with a thread each answer more calls than one worker with
   * several. `auto` measures, and takes all cores for one run where that loses nothing.
   */
  readonly intraOpThreads?: number | 'auto';
  /**
   * Bytes that loaded models may take, counted by the size of their files, once for each worker. Over it, the models
   * that were not used for longest leave memory, and come back with their next call. Default: no limit.
   */
  readonly memoryBudgetBytes?: number;
  /**
   * Bytes of the largest model that is downloaded. Default 2 GiB; in browsers on iOS, which end pages that take more
   * memory than they like, 200 MiB.
   */
  readonly maxModelBytes?: number;
  /** Hears of decisions and faults. pino fits as it is. Default: nobody. */
  readonly logger?: Logger;
  /** The cache of answers that models loaded with `predictions: true` share. */
  readonly predictions?: PredictionsOptions;
  /** Follow a sync server. Without it only files, URLs and bytes can be loaded. */
  readonly sync?: SyncOptions;
  /**
   * Tells the server how models loaded by name do, so that it can stop a release that does badly: counts, times and codes of
   * errors, never what models are given or give. Default: nothing is counted.
   */
  readonly telemetry?: TelemetryOptions;
}

/** Options of {@link Inlay.load}. */
export interface LoadOptions extends SchedulingOptions, Pick<RunOptions, 'deadlineMs' | 'priority'> {
  /** Where to run this model. Default: what `createInlay` was given. */
  readonly device?: DevicePreference;
  /** In which kind of place to run it. Default: what `createInlay` was given, or `auto`. */
  readonly placement?: Placement | 'auto';
  /**
   * Answers feeds that were seen before from a cache, and makes one run of equal calls under way, with the deadline and
   * priority of the first. Default false; for models that give the same for the same.
   */
  readonly predictions?: boolean;
  /** Hears how far the load is, a download piece by piece. */
  readonly onProgress?: ProgressListener;
  /** Gives the load up: it rejects with `signal.reason`, and a model that is there nevertheless is closed. */
  readonly signal?: AbortSignal;
}

/** Every decision that Inlay took by itself, with its reason. */
export interface InlayInfo {
  readonly runtime: string;
  readonly store: StoreInfo;
  readonly backends: readonly string[];
  readonly models: readonly (ServingInfo & {
    readonly name: string | undefined;
    readonly version: string | undefined;
  })[];
  readonly memory: {
    /** Bytes of models in memory now. */
    readonly usedBytes: number;
    readonly budgetBytes: number | undefined;
  };
  /** The cache of answers, once a model uses it. */
  readonly predictions: PredictionsStats | undefined;
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
  load<M extends ModelTypes = ModelTypes>(
    reference: ModelReference,
    options?: LoadOptions,
  ): Promise<Model<M>>;
  /**
   * Joins models and functions into a graph; see {@link PipelineDefinition}.
   * @throws `TypeError` for a graph that cannot work, with the step's name.
   */
  pipeline<const Definition extends PipelineDefinition>(
    definition: Definition,
  ): Promise<Pipelines.Pipeline<PipelineInputs<Definition>, PipelineOutputs<Definition>>>;
  info(): InlayInfo;
  /**
   * Counters and histograms of all models as text for Prometheus, in its format 0.0.4; those that Triton has as well are
   * there under its names, too. Empty before the first model.
   */
  metrics(): string;
  /** Where models by name are kept: to see what is there, to pin or delete it, to ask the platform not to evict it. */
  readonly store: Store;
  /** What updates are at, and how to steer them. */
  readonly updates: Updates;
  /** What the server is told, and whether it may be. */
  readonly telemetry: Telemetry;
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
  /** Loads the part that opens models and plans their runs. */
  readonly engine: () => Promise<typeof Engine>;
  /** Loads the part that joins models. */
  readonly pipelines: () => Promise<typeof Pipelines>;
  readonly placement?: Placement | 'auto';
  /** Finds what records spans, when the first model is loaded. */
  readonly tracing?: () => Promise<Tracing | undefined>;
  /** What `close()` closes: the parts that the host did not bring. */
  readonly owned: readonly { close(): Promise<void> }[];
}

const MODEL_CAP_BYTES = 2 ** 31;

/** Puts an {@link Inlay} together from its parts. It touches neither disk nor network until something is loaded. */
export function assembleInlay(parts: InlayParts): Inlay {
  const { platform, store, backends } = parts;
  if (parts.sync !== undefined) assertSync(parts.sync);
  const { memoryBudgetBytes = 1, intraOpThreads = 1, maxModelBytes = MODEL_CAP_BYTES } = parts;
  if (
    intraOpThreads !== 'auto' &&
    !(Number.isInteger(intraOpThreads) && intraOpThreads >= 1 && intraOpThreads <= 1024)
  ) {
    throw new RangeError(`intraOpThreads is 'auto' or a whole number from 1 to 1024, got ${intraOpThreads}.`);
  }
  for (const [name, bytes] of Object.entries({ memoryBudgetBytes, maxModelBytes })) {
    if (typeof bytes === 'number' && bytes > 0) continue;
    throw new RangeError(`${name} is a number of bytes above 0, got ${String(bytes)}.`);
  }
  const models = new Set<ManagedModel>();
  /** Loads under way, those included that nobody waits for any more. */
  const loads = new Set<Promise<unknown>>();
  let machine: Engine.Machine | undefined;
  let machineStarting: Promise<Engine.Machine> | undefined;
  let starting: Promise<UpdateClient> | undefined;
  let client: UpdateClient | undefined;
  let closing: Promise<void> | undefined;
  const closes = new AbortController();
  /** Finds a file. What comes in over a network is not waited for when everything is being closed. */
  const find = (
    file: FileReference,
    options: Pick<LoadOptions, 'signal' | 'onProgress'> = {},
  ): Promise<ModelSource> => orAbort(locate({ ...parts, maxModelBytes }, file, options), closes.signal);

  const reporting = createReporting({
    ...parts,
    provider: () => {
      const [served] = [...models].filter(({ model: { name } }) => name !== undefined);
      return served?.current().info().provider;
    },
    onError: (error) => {
      parts.logger?.warn({ err: error }, 'There is no telemetry: its code could not be loaded.');
    },
  });

  const startClient = async (options: SyncOptions): Promise<UpdateClient> => {
    const [{ createUpdateClient }, { prove, providers }, reports] = await Promise.all([
      parts.remote(),
      start(),
      reporting.open(),
    ]);
    client = createUpdateClient({
      ...options,
      ...(reports && { observe: (model) => reports.model(model).observer }),
      platform,
      store,
      maxModelBytes,
      prove,
      providers,
      onError: (error) => {
        parts.logger?.warn({ err: error }, 'A listener for updates failed.');
      },
    });
    if (reports) client.onEvent(reports.updated);
    return client;
  };
  /** The updates; `undefined` without a sync server. */
  const updates = async (): Promise<UpdateClient | undefined> => {
    if (closing !== undefined) throw closedError('This Inlay');
    if (parts.sync === undefined) return undefined;
    return (starting ??= startClient(parts.sync).catch((error: unknown) => {
      starting = undefined;
      throw error;
    }));
  };

  const startMachine = async (): Promise<Engine.Machine> => {
    const { createMachine } = await parts.engine();
    return (machine = createMachine(parts, await parts.tracing?.()));
  };
  const start = (): Promise<Engine.Machine> =>
    (machineStarting ??= startMachine().catch((error: unknown) => {
      machineStarting = undefined;
      throw error;
    }));

  const manage = async (modelParts: ModelParts, serving: Serving): Promise<ManagedModel> => {
    if (closing !== undefined) {
      await serving.close();
      throw closedError('This Inlay');
    }
    const managed = (await parts.engine()).createModel(modelParts, serving);
    models.add(managed);
    void managed.closed.then(() => models.delete(managed));
    return managed;
  };

  const load = async (reference: ModelReference, options: LoadOptions = {}): Promise<Model> => {
    if (closing !== undefined) throw closedError('This Inlay');
    assertReference(reference);
    const { signal, onProgress } = options;
    assertNotAborted(signal);
    const listener =
      onProgress &&
      createLoadListener(onProgress, (error) => {
        parts.logger?.warn({ err: error }, 'A listener for progress failed.');
      });
    const told: LoadOptions = listener === undefined ? options : { ...options, onProgress: listener.tell };
    const loading =
      typeof reference === 'object' && 'name' in reference
        ? loadByName(reference, told)
        : loadFrom(reference, told);
    const opened = loading.catch((error: unknown) => {
      // What fails while everything is being closed fails because of that.
      throw closing === undefined ? error : closedError('This Inlay');
    });
    loads.add(opened);
    const settle = (): void => {
      loads.delete(opened);
      listener?.end();
    };
    opened.then(settle, settle);
    return signal === undefined
      ? opened
      : orAbort(opened, signal, (model) => void model.close().catch(() => {}));
  };

  const loadFrom = async (
    reference: FileReference | VariantsReference,
    options: LoadOptions,
  ): Promise<Model> => {
    if (isFile(reference)) return openAs(undefined, reference, options);
    const { openVariants, partsOf } = await start();
    const modelParts = partsOf(undefined, options);
    const serving = await openVariants(reference, (file) => find(file), modelParts, options);
    return (await manage(modelParts, serving)).model;
  };

  const openAs = async (
    name: string | undefined,
    file: FileReference,
    options: LoadOptions,
  ): Promise<Model> => {
    const { open, partsOf } = await start();
    const modelParts = partsOf(name, options);
    const serving = await open(await find(file, options), modelParts, options);
    return (await manage(modelParts, serving)).model;
  };

  const loadByName = async (reference: NamedReference, options: LoadOptions): Promise<Model> => {
    const { name, embedded } = reference;
    const following = await updates();
    if (following === undefined) {
      if (embedded !== undefined) return openAs(name, isFile(embedded) ? embedded : embedded.file, options);
      throw new ModelError(
        'ERR_INLAY_MODEL_UNAVAILABLE',
        `Model "${name}" cannot be loaded by name: createInlay was given no sync server; it takes one as sync: { url, root }.`,
      );
    }
    const { open, partsOf, prepare, readEmbedded } = await start();
    const { createModel, loadFollow } = await parts.engine();
    const { followReleases } = await loadFollow();
    const telemetry = (await reporting.open())?.model(name);
    const counts = telemetry && { ...telemetry, monotonicMs: platform.monotonicMs };
    const modelParts = { ...partsOf(name, options), telemetry: counts };
    const { onProgress } = options;
    return followReleases(following.updater(name), name, {
      platform,
      open: ({ source, version, variant }, present) =>
        open(source, modelParts, { ...options, version, variant, costs: present?.costs(), mustRun: true }),
      ...(embedded !== undefined && {
        embedded: () => readEmbedded(embedded, (file) => find(file, options)),
      }),
      manage: (serving) => {
        const managed = createModel(modelParts, serving);
        models.add(managed);
        void managed.closed.then(() => models.delete(managed));
        if (closing !== undefined) void managed.model.close();
        return managed;
      },
      prepare,
      telemetry,
      onDownload:
        onProgress &&
        ((loadedBytes, totalBytes) => {
          onProgress({ phase: 'download', loadedBytes, totalBytes });
        }),
    });
  };

  const inlay: Inlay = {
    load: load as Inlay['load'],
    pipeline: async (definition) => {
      const { createPipeline } = await parts.pipelines();
      return createPipeline(platform, definition);
    },
    info: () => ({
      runtime: platform.runtime,
      store: store.info(),
      backends: backends.map((backend) => backend.name),
      models: [...models].map(({ model: { name, version }, current }) => ({
        name,
        version,
        ...current().info(),
      })),
      memory: { usedBytes: machine?.usedBytes() ?? 0, budgetBytes: parts.memoryBudgetBytes },
      predictions: machine?.predictions(),
      sync: client?.info(),
    }),
    store,
    metrics: () => machine?.metricsOf(models) ?? '',
    updates: createUpdates(updates),
    telemetry: reporting.telemetry,
    checkForUpdates: () => inlay.updates.check(),
    close: () => {
      closing ??= (async () => {
        // Calls are refused from now on; those that were accepted are answered.
        closes.abort();
        const closed = [...models].map(({ model }) => model.close());
        await (await starting?.catch(() => undefined))?.close();
        await Promise.all(closed);
        await Promise.allSettled(loads);
        await reporting.close();
        await Promise.all(parts.owned.map((part) => part.close()));
      })();
      return closing;
    },
    [Symbol.asyncDispose]: () => inlay.close(),
  };
  return inlay;
}

function assertSync({ url, root }: SyncOptions): void {
  if (typeof url !== 'string')
    throw new TypeError(`sync.url is the address of a sync server, got ${nameOf(url)}.`);
  if (typeof root === 'string' || (typeof root === 'object' && root !== null)) return;
  throw new TypeError(
    `sync.root is the content of the root.json that \`inlay keys init\` wrote, got ${nameOf(root)}.`,
  );
}
