import { fromUtf8 } from '../../../src/core/bytes.ts';
import { BackendError, isInlayError } from '../../../src/core/errors.ts';
import type { Platform } from '../../../src/core/platform.ts';
import type { Store } from '../../../src/core/store.ts';
import { Tensor } from '../../../src/core/tensor.ts';
import { assembleInlay, type Inlay, type SyncOptions } from '../../../src/engine/inlay.ts';
import type { NamedReference } from '../../../src/engine/reference.ts';
import type { Model } from '../../../src/engine/model.ts';
import { createMemoryStore } from '../../../src/stores/memory.ts';
import type { TelemetryOptions } from '../../../src/telemetry/options.ts';
import type { PlanEntry, SignedPlan } from '../../../src/update/plan.ts';
import type { SlotsState } from '../../../src/update/slot.ts';
import { testPlatform, type TestPlatform } from '../platform.ts';
import { createRepository, serve, type FakeServer, type Repository } from '../publish/repository.ts';
import { fakeBackend, type FakeBackendOptions } from './fakes.ts';

/** What a made-up model does. Its first byte says which. */
export const deeds = {
  /** Doubles, times its second byte. */
  good: 1,
  refusesToOpen: 2,
  hangsAtOpen: 3,
  givesNaN: 4,
  fails: 5,
  isSlow: 6,
} as const;

/** Bytes of a made-up model that multiplies by a factor. */
export function made(factor: number, deed: keyof typeof deeds = 'good'): Uint8Array<ArrayBuffer> {
  return Uint8Array.of(deeds[deed], factor);
}

/** A world of one server, and devices on which time passes only when the test says so. */
export interface World {
  readonly repository: Repository;
  readonly server: FakeServer;
  /** Publishes a version and rolls it out. */
  ship(
    version: string,
    bytes: Uint8Array,
    plan?: Partial<SignedPlan>,
  ): Promise<PlanEntry & { model: string }>;
  /** Changes the plan in force; a field that is `undefined` goes. */
  change(plan: Partial<SignedPlan>): Promise<void>;
}

export async function createWorld(): Promise<World> {
  const repository = await createRepository(testPlatform());
  const server = serve(() => repository);
  const change = async (more: Partial<SignedPlan>): Promise<void> => {
    const [plan] = repository.plans['stable'] ?? [];
    if (plan === undefined) throw new Error('There is no plan.');
    const next = Object.entries({ ...plan, ...more }).filter(([, value]) => value !== undefined);
    repository.plans = { stable: [Object.fromEntries(next) as unknown as SignedPlan] };
    await repository.signAll();
  };
  return {
    repository,
    server,
    change,
    ship: async (version, bytes, plan = {}) => {
      const release = await repository.release('digits', version, bytes);
      await repository.rollOut(release, 100);
      if (Object.keys(plan).length > 0) await change(plan);
      return release;
    },
  };
}

/** One installation of an app. */
export interface Device {
  readonly inlay: Inlay;
  readonly platform: TestPlatform;
  readonly store: Store;
  load(embedded?: NamedReference['embedded']): Promise<Model>;
  /** Asks the server, and lets what follows come to its end. */
  update(): Promise<void>;
  /** Lets time pass, and what follows come to its end. */
  pass(ms: number): Promise<void>;
  slots(): Promise<SlotsState>;
  /** Types of the events so far, with reasons. */
  events(): Promise<string[]>;
}

export interface DeviceOptions {
  readonly store?: Store;
  readonly platform?: TestPlatform;
  readonly sync?: Partial<SyncOptions>;
  readonly telemetry?: TelemetryOptions;
  /** Answers requests in place of the world's server. */
  readonly fetch?: Platform['fetch'];
  readonly run?: string;
  /** Runs of the app that have not ended. */
  readonly alive?: ReadonlySet<string>;
}

export function startDevice(world: World, options: DeviceOptions = {}): Device {
  const { store = createMemoryStore(), run, alive = new Set() } = options;
  const base = options.platform ?? testPlatform({ fetch: world.server.fetch });
  const platform: TestPlatform = {
    ...base,
    fetch: options.fetch ?? world.server.fetch,
    ...(run !== undefined && { instance: { id: run, isAlive: async (id) => alive.has(id) } }),
  };
  const inlay = assembleInlay({
    platform,
    store,
    backends: [deedBackend(platform)],
    remote: () => import('../../../src/update/remote.ts'),
    engine: () => import('../../../src/engine/machine.ts'),
    pipelines: () => import('../../../src/engine/pipeline.ts'),
    sync: {
      url: 'https://sync.test',
      root: fromUtf8(world.repository.roots[0] ?? new Uint8Array()),
      ...options.sync,
    },
    ...(options.telemetry && { telemetry: options.telemetry }),
    owned: [],
  });
  const settle = async (): Promise<void> => {
    for (let turn = 0; turn < 60; turn += 1) {
      await new Promise((resolve) => {
        setTimeout(resolve, 1);
      });
      await platform.verified();
    }
  };
  return {
    inlay,
    platform,
    store,
    load: (embedded) => inlay.load({ name: 'digits', ...(embedded !== undefined && { embedded }) }),
    update: async () => {
      await inlay.checkForUpdates();
      await settle();
    },
    pass: async (ms) => {
      platform.advance(ms);
      await settle();
    },
    slots: async () => {
      const state = (await inlay.updates.state())?.models['digits'];
      if (state === undefined) throw new Error('The model was not loaded.');
      return state;
    },
    events: async () =>
      (await inlay.updates.history()).map(({ type, reason }) =>
        reason === undefined ? type : `${type} ${reason}`,
      ),
  };
}

/** The version that answers, and by what it multiplies. */
export async function answerOf(model: Model): Promise<readonly [string | undefined, number]> {
  const { version } = model;
  const { y } = await model.run({ x: [1, 2] });
  return [version, Number(y?.data[0])];
}

/** Calls so often that a trial has seen enough. */
export async function callOften(model: Model, calls = 20): Promise<void> {
  for (let call = 0; call < calls; call += 1) await model.run({ x: [1, 2] }).catch(() => {});
}

/** Code of the error that a promise rejects with. */
export async function codeOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => 'fulfilled',
    (error: unknown) => (isInlayError(error) ? error.code : String(error)),
  );
}

function deedBackend(platform: TestPlatform): ReturnType<typeof fakeBackend> {
  const options: FakeBackendOptions = {};
  const backend = fakeBackend(options);
  return {
    ...backend,
    createSession: async (source, sessionOptions) => {
      const bytes = source.bytes ?? new Uint8Array();
      const [deed, factor = 0] = bytes;
      if (deed === deeds.refusesToOpen) throw new Error('It does not open.');
      if (deed === deeds.hangsAtOpen) await new Promise(() => {});
      const session = await backend.createSession(source, sessionOptions);
      return {
        ...session,
        run: async ({ x }) => {
          if (deed === deeds.fails && x?.data.some((value) => value !== 0))
            throw new BackendError('ERR_INLAY_RUN_FAILED', 'It does not run.');
          if (deed === deeds.isSlow) platform.advance(50);
          const by = deed === deeds.givesNaN ? NaN : factor;
          const data = Float32Array.from(x?.data as Float32Array, (value) => value * by);
          return { y: new Tensor('float32', x?.shape ?? [], data) };
        },
      };
    },
  };
}
