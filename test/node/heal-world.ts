/** A repository with its server on loopback, and models that tell which version they are. */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { fromUtf8 } from '../../src/core/bytes.ts';
import { Tensor } from '../../src/core/tensor.ts';
import { createGraph, encodeModel, type GraphBuilder } from '../../src/onnx/index.ts';
import { nodePlatform } from '../../src/platform-node.ts';
import { addRelease, expiresIn, listReleases } from '../../src/publish/release.ts';
import { canonicalJson } from '../../src/trust/canonical-json.ts';
import { writeGolden } from '../../src/update/golden.ts';
import type { FileRef, ReleaseManifest } from '../../src/update/manifest.ts';
import type { PlanEntry, SignedPlan, TrialRules } from '../../src/update/plan.ts';
import { createRepository, serve, type Repository } from '../core/publish/repository.ts';
import { describe, randomBytes, sha256Of } from './download-fixture.ts';
import type { Deed } from './heal-backend.ts';

/** One request, and what a good server answers. */
export interface Exchange {
  readonly path: string;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array;
}

/** Answers in the place of the server; `true` when it has. */
export type Spoiler = (exchange: Exchange) => boolean | void;

/** A publisher, its server, and what the server was asked. */
export interface World {
  readonly url: string;
  readonly root: string;
  readonly repository: Repository;
  /** Paths of the requests since the last call, with the ranges. */
  requests(): string[];
  spoil: Spoiler | undefined;
  /**
   * Publishes a version with manifest and golden inputs, and rolls it out to everybody.
   * @returns the release, and the SHA-256 of every file that a device may have of it.
   */
  ship(version: number, options?: ShipOptions): Promise<Shipped>;
  /** Signs everything anew, as of another day. */
  resign(days?: Parameters<Repository['signAll']>[0]): Promise<void>;
}

export interface ShipOptions {
  /** Default: {@link scale} of the version. */
  readonly bytes?: Uint8Array;
  /** Whether the release says what it answers. Default true. */
  readonly golden?: boolean;
  readonly trial?: Partial<TrialRules>;
  readonly plan?: Partial<SignedPlan>;
}

export interface Shipped {
  readonly release: PlanEntry & { readonly model: string };
  readonly files: readonly string[];
}

/** Two good calls, and a release is committed. */
export const quickTrial: Partial<TrialRules> = { minInferences: 2, soakS: 0 };

const chunkBytes = 8192;
/** Some 40 kB that no two versions have in common. */
const spareBytes = 40_960;

/** Builds a model of which the name of the graph says what it is: the backend of `heal-backend.ts` reads no more. */
export function modelOf(
  name: string,
  build: (graph: GraphBuilder) => void,
  spare: number = spareBytes,
): Uint8Array<ArrayBuffer> {
  const graph = createGraph({ name, opset: 17 });
  graph.input('x', 'float32', ['batch', 2]);
  const weights = randomBytes(spare, name.length + name.charCodeAt(name.length - 2));
  if (spare > 0) graph.initializer('spare', new Tensor('uint8', [weights.length], weights));
  build(graph);
  graph.output('y', 'float32', ['batch', 2]);
  return encodeModel(graph.toModel());
}

/** `y = x · factor`, and in the backend of these tests whatever the deed says. */
export function scale(factor: number, deed: Deed = 'good', spare?: number): Uint8Array<ArrayBuffer> {
  return modelOf(
    `deed ${deed} factor ${factor};`,
    (graph) => {
      graph.initializer('factor', new Tensor('float32', [1], Float32Array.of(factor)));
      graph.node('Mul', ['x', 'factor'], {}, { outputs: ['y'] });
    },
    spare,
  );
}

function goldenOf(factor: number): Uint8Array<ArrayBuffer> {
  const tensor = (values: readonly number[]): Tensor =>
    new Tensor('float32', [1, 2], Float32Array.from(values));
  return writeGolden([{ inputs: { x: tensor([1, -2]) }, outputs: { y: tensor([factor, -2 * factor]) } }]);
}

/** Starts one. Close it with `onTestFinished` or `afterAll`. */
export async function startWorld(): Promise<World & { close(): Promise<void> }> {
  const platform = nodePlatform();
  const repository = await createRepository(platform);
  const answers = serve(() => repository);
  const seen: string[] = [];

  /** What is being published is not seen by halves. */
  let publishing: Promise<unknown> = Promise.resolve();

  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    await publishing;
    const path = request.url ?? '';
    const { range } = request.headers;
    seen.push(range === undefined ? path : `${path} ${range}`);
    const tag = request.headers['if-none-match'];
    const real = await answers.fetch(`https://sync.test${path}`, {
      headers: tag === undefined ? {} : { 'if-none-match': tag },
    });
    const whole = new Uint8Array(await real.arrayBuffer());
    const etag = real.headers.get('etag') ?? `"${sha256Of(whole).slice(0, 16)}"`;
    const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(range ?? '') ?? [];
    const isTagged = request.headers['if-range'] === undefined || request.headers['if-range'] === etag;
    const isPart = real.status === 200 && first !== undefined && isTagged;
    const to = isPart ? Math.min(Number(last) + 1, whole.length) : whole.length;
    const body = isPart ? whole.subarray(Number(first), to) : whole;
    const status = isPart ? 206 : real.status;
    const headers: Record<string, string> = {
      'content-type': real.headers.get('content-type') ?? 'application/octet-stream',
      etag,
      ...(isPart && { 'content-range': `bytes ${first}-${to - 1}/${whole.length}` }),
      ...(status !== 304 && { 'content-length': String(body.length) }),
    };
    if (world.spoil?.({ path, request, response, status, headers, body }) === true) return;
    response.writeHead(status, headers);
    response.end(body);
  };
  const server = createServer((request, response) => {
    answer(request, response).catch(() => response.destroy());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');

  const ship = async (version: number, options: ShipOptions): Promise<Shipped> => {
    const { bytes = scale(version), golden = true, trial = quickTrial, plan = {} } = options;
    const seq = version;
    const ref = (file: string, content: Uint8Array): FileRef => ({
      path: `models/digits/${seq}/${file}`,
      sha256: sha256Of(content),
      length: content.length,
    });
    const described = describe(bytes, chunkBytes, ref('model.onnx', bytes).path);
    const companion = goldenOf(version);
    const manifest: ReleaseManifest = {
      v: 1,
      model: 'digits',
      version: String(version),
      seq,
      files: [{ ...described.target, variant: 'fp32', chunks: described.chunks }],
      ...(golden && {
        golden: { ...ref('golden.json', companion), tolerance: { absoluteE6: 10, relativeE6: 10 } },
      }),
    };
    const written = canonicalJson(manifest);
    for (const content of [bytes, companion, written]) repository.blobs.set(sha256Of(content), content);
    const added = addRelease(repository.targetsBody, {
      model: 'digits',
      version: String(version),
      file: 'model.onnx',
      length: bytes.length,
      sha256: sha256Of(bytes),
      expires: expiresIn(platform.now(), 180),
      custom: { manifest: ref('release.json', written) },
    });
    if (added.seq !== seq) throw new Error(`Versions are shipped in order, from 1; this is ${added.seq}.`);
    repository.targetsBody = added.targets;
    const release = listReleases(added.targets).find((one) => one.seq === seq);
    if (release === undefined) throw new Error('The release is not listed.');
    await repository.rollOut(release, 100);
    const [present] = repository.plans['stable'] ?? [];
    if (present === undefined) throw new Error('There is no plan.');
    repository.plans = { stable: [{ ...present, trial, ...plan }] };
    await repository.signAll();
    return { release, files: [bytes, ...(golden ? [companion] : [])].map(sha256Of) };
  };

  const world: World & { close(): Promise<void> } = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    root: fromUtf8(repository.roots[0] ?? new Uint8Array()),
    repository,
    requests: () => seen.splice(0),
    spoil: undefined,
    resign: (days) => repository.signAll(days),
    ship: (version, options = {}) => {
      const shipping = ship(version, options);
      publishing = shipping.catch(() => {});
      return shipping;
    },
    close: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => {
        server.close(resolve);
      });
    },
  };
  return world;
}
