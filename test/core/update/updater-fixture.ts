import { fromUtf8 } from '../../../src/core/bytes.ts';
import type { TensorMap } from '../../../src/core/backend.ts';
import type { Store } from '../../../src/core/store.ts';
import { Tensor } from '../../../src/core/tensor.ts';
import { describeChunks, writeManifest } from '../../../src/publish/manifest.ts';
import { addRelease, listReleases, nextSeq, type ListedRelease } from '../../../src/publish/release.ts';
import { createMemoryStore } from '../../../src/stores/memory.ts';
import { sha256Hex } from '../../../src/trust/keys.ts';
import type { Embedded, Follower, Target } from '../../../src/update/follower.ts';
import type { GoldenTolerance, ReleaseFile } from '../../../src/update/manifest.ts';
import {
  createUpdateClient,
  type UpdateClient,
  type UpdateClientParts,
} from '../../../src/update/update-client.ts';
import type { UpdaterState } from '../../../src/update/follower.ts';
import { blobsIn } from '../../conformance/store.ts';
import { createWorld, type World } from '../engine/device.ts';
import { testPlatform, until, type TestPlatform } from '../platform.ts';

export { createWorld, until, type World };

export const minute = 60_000;
export const hour = 60 * minute;
export const day = 24 * hour;

/** Bytes of a version; what they mean is up to {@link FollowerOptions.onOpen}. */
export function version(number: number, length = 300): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length }, (_, i) => (i * number) % 251);
}

export const hashOf = (bytes: Uint8Array): string => sha256Hex(testPlatform(), bytes);

const goodAnswer: TensorMap = { y: new Tensor('float32', [1], Float32Array.of(1)) };

/** Something that answers calls, of which the test decides what works. */
export interface FakeFollower extends Follower {
  /** What answers now. */
  present(): Target | undefined;
  version(): string | undefined;
  /** What runs in the shadow. */
  mirrored(): { readonly target: Target; readonly sampleBp: number } | undefined;
  /** Versions that answered, in order. */
  readonly answered: (string | undefined)[];
  readonly errors: unknown[];
  /** Releases that are open now, the present one included. */
  readonly open: Follower['open'];
  openCount(): number;
  isIdleFor: number;
  call(times?: number, outputs?: TensorMap): void;
}

export interface FollowerOptions {
  /** Throws, or waits, where a release is opened. */
  readonly onOpen?: (target: Target) => void | Promise<void>;
}

export function fakeFollower({ onOpen = () => {} }: FollowerOptions = {}): FakeFollower {
  let present: Target | undefined;
  let open = 0;
  let mirrored: { readonly target: Target; readonly sampleBp: number } | undefined;
  const follower: FakeFollower = {
    present: () => present,
    version: () => present?.version,
    mirrored: () => mirrored,
    answered: [],
    errors: [],
    openCount: () => open,
    isIdleFor: Infinity,
    open: async (target) => {
      await onOpen(target);
      open += 1;
      return {
        enter: () => {
          if (present !== undefined) open -= 1;
          present = target;
          follower.answered.push(target.version);
        },
        mirror: (sampleBp) => {
          mirrored = { target, sampleBp };
        },
        discard: async () => {
          open -= 1;
          if (mirrored?.target === target) mirrored = undefined;
        },
      };
    },
    idleMs: () => follower.isIdleFor,
    failed: (error) => {
      follower.errors.push(error);
    },
    call: (times = 1, outputs = goodAnswer) => {
      for (let call = 0; call < times; call += 1) present?.watch.answered(1, outputs);
    },
  };
  return follower;
}

/** The updates of one app on one device, on which time passes only when the test says so. */
export interface App {
  readonly client: UpdateClient;
  readonly platform: TestPlatform;
  readonly store: Store;
  readonly faults: unknown[];
  /** Joins a follower to the updater of the model. */
  follow(options?: FollowerOptions, embedded?: Embedded): Promise<FakeFollower>;
  /** Asks the server, and lets what follows come to its end. */
  update(): Promise<void>;
  /** Lets time pass, and what follows come to its end. */
  pass(ms: number): Promise<void>;
  /** Lets the trial of a follower see enough. */
  prove(follower: FakeFollower): Promise<void>;
  state(): Promise<UpdaterState>;
  /** Types of the events so far, with reasons. */
  events(): Promise<string[]>;
}

export type AppOptions = Partial<UpdateClientParts> & { readonly platform?: TestPlatform };

export function startApp(world: World, options: AppOptions = {}): App {
  const platform = options.platform ?? testPlatform({ fetch: world.server.fetch });
  const store = options.store ?? createMemoryStore();
  const faults: unknown[] = [];
  const client = createUpdateClient({
    url: 'https://sync.test',
    root: fromUtf8(world.repository.roots[0] ?? new Uint8Array()),
    maxModelBytes: 2 ** 31,
    providers: async () => [{ name: 'cpu', device: 'cpu' }],
    prove: async () => {},
    onError: (error) => faults.push(error),
    ...options,
    platform,
    store,
  });
  const updater = client.updater('digits');
  const app: App = {
    client,
    platform,
    store,
    faults,
    follow: async (more, embedded) => {
      const follower = fakeFollower(more);
      await updater.join(follower, embedded && (async () => embedded), undefined);
      return follower;
    },
    update: async () => {
      await client.check();
      await settle();
    },
    pass: async (ms) => {
      platform.advance(ms);
      await settle();
    },
    prove: async (follower) => {
      follower.call(20);
      await app.pass(2 * minute);
    },
    state: () => updater.state(),
    events: async () =>
      (await client.history()).map(({ type, reason }) => (reason === undefined ? type : `${type} ${reason}`)),
  };
  return app;
}

/** Files of releases in a store: without the signed metadata that proves where they are from. */
export async function filesIn(store: Store): Promise<readonly string[]> {
  const files: string[] = [];
  for (const sha256 of await blobsIn(store)) {
    const bytes = (await (await store.blob(sha256))?.bytes()) ?? new Uint8Array();
    if (!new TextDecoder().decode(bytes).includes('"_type":"targets"')) files.push(sha256);
  }
  return files;
}

/** Lets everything that is under way come to its end. */
export async function settle(turns = 40): Promise<void> {
  for (let turn = 0; turn < turns; turn += 1) {
    await new Promise((resolve) => {
      setTimeout(resolve, 0);
    });
  }
}

/** Lets a task that needs the network have all of its tries. @returns what it rejects with. */
export async function failing(app: Pick<App, 'platform'>, task: Promise<unknown>): Promise<unknown> {
  let outcome: { readonly error: unknown } | undefined;
  task.then(
    () => (outcome = { error: undefined }),
    (error: unknown) => (outcome = { error }),
  );
  while (outcome === undefined) {
    await until(() => outcome !== undefined || app.platform.timers().some((wait) => wait <= 10_000));
    if (outcome === undefined) app.platform.advance(10_000);
  }
  return outcome.error;
}

/** What came with the app. */
export function embed(bytes: Uint8Array<ArrayBuffer>, release?: ListedRelease): Embedded {
  const file = { sha256: hashOf(bytes), length: bytes.length };
  return {
    slot: { release: release ?? { ...file, path: '', seq: 0, version: '' }, file },
    source: async () => ({ bytes }),
    bytes: async () => bytes,
  };
}

/** What {@link publish} makes a release of. */
export interface ReleaseParts {
  readonly files: readonly (Pick<ReleaseFile, 'requires' | 'anchor'> & {
    readonly variant: string;
    readonly bytes: Uint8Array<ArrayBuffer>;
    readonly patch?: { readonly from: string; readonly bytes: Uint8Array<ArrayBuffer> };
  })[];
  readonly golden?: { readonly bytes: Uint8Array<ArrayBuffer>; readonly tolerance: GoldenTolerance };
  readonly profile?: Uint8Array<ArrayBuffer>;
}

/** Publishes a release with a manifest. */
export async function publish(world: World, name: string, parts: ReleaseParts): Promise<ListedRelease> {
  const { repository } = world;
  const platform = testPlatform();
  const [reference, ...others] = parts.files.map(({ variant, bytes, requires, anchor, patch }, at) => ({
    file: at === 0 ? 'model.onnx' : `model.${variant}.onnx`,
    variant,
    bytes,
    requires,
    anchor,
    sha256: hashOf(bytes),
    chunks: describeChunks(platform, bytes),
    ways:
      patch === undefined
        ? []
        : [
            {
              kind: 'patch' as const,
              codec: 'test',
              from: patch.from,
              file: `patch.${variant}.bin`,
              bytes: patch.bytes,
              sha256: hashOf(patch.bytes),
            },
          ],
  }));
  if (reference === undefined) throw new Error('A release has a file.');
  const seq = nextSeq(repository.targetsBody, 'digits');
  const { ref, companions } = writeManifest(
    platform,
    { files: [reference, ...others], golden: parts.golden, profile: parts.profile },
    { model: 'digits', version: name, seq },
  );
  for (const { sha256, bytes } of [reference, ...companions]) repository.blobs.set(sha256, bytes);
  const added = addRelease(repository.targetsBody, {
    model: 'digits',
    version: name,
    file: reference.file,
    length: reference.bytes.length,
    sha256: reference.sha256,
    custom: { manifest: ref },
    companions,
    expires: repository.targetsBody.expires,
  });
  repository.targetsBody = added.targets;
  await repository.signAll();
  const entry = listReleases(added.targets).find(({ path }) => path === added.path);
  if (entry === undefined) throw new Error('The release is not listed.');
  return entry;
}

/** Signs which releases must not run. */
export async function withdraw(
  world: World,
  policy: { readonly floorSeq?: number; readonly revoked?: readonly number[] },
): Promise<void> {
  const { repository } = world;
  const { targetsBody } = repository;
  repository.targetsBody = {
    ...targetsBody,
    version: targetsBody.version + 1,
    custom: { models: { digits: policy } },
  };
  await repository.signAll();
}

/** A promise that somebody else settles. */
export function gate(): {
  readonly promise: Promise<void>;
  readonly open: () => void;
  readonly asked: () => boolean;
  readonly wait: () => Promise<void>;
} {
  let open = (): void => {};
  let isAsked = false;
  const promise = new Promise<void>((resolve) => {
    open = resolve;
  });
  return {
    promise,
    open: () => open(),
    asked: () => isAsked,
    wait: () => {
      isAsked = true;
      return promise;
    },
  };
}
