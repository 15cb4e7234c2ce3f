import { readdir, readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { join } from 'node:path';
import type { AddressInfo } from 'node:net';
import { once } from 'node:events';
import {
  createBackends,
  createInlay,
  isInlayError,
  Tensor,
  tensorFrom,
  type Backend,
  type Inlay,
  type Model,
} from 'inlay';
import { createGraph, encodeModel, type GraphBuilder } from 'inlay/onnx';
import { openFsStore, type FileSystem } from 'inlay/stores/fs';
import { afterAll, expect, onTestFinished, vi } from 'vitest';
import { nodePlatform } from '../../src/platform-node.ts';
import {
  expectOk,
  install,
  publish,
  startTestServer,
  temporaryDirectory,
  testPlatform,
  tipOf,
  type TestServer,
} from './server-fixture.ts';

/** Workers are slow to start, so all devices of a file share them. */
export const backends = createBackends({ placement: 'worker' });
afterAll(async () => {
  await Promise.all(backends.map((backend) => backend.close()));
});

/** Builds a model around `x`, float32 [batch, 2]. */
export function graphOf(build: (graph: GraphBuilder) => void): Uint8Array<ArrayBuffer> {
  const graph = createGraph({ name: 'test', opset: 17 });
  build(graph);
  return encodeModel(graph.toModel());
}

/** `y = x · factor`: its answers tell the version. */
export function scale(factor: number): Uint8Array<ArrayBuffer> {
  return graphOf((graph) => {
    graph.input('x', 'float32', ['batch', 2]);
    graph.initializer('factor', new Tensor('float32', [1], new Float32Array([factor])));
    graph.node('Mul', ['x', 'factor'], {}, { outputs: ['y'] });
    graph.output('y', 'float32', ['batch', 2]);
  });
}

/** It loads, with the signature of {@link scale}, and no run of it works. */
export const failsAtRun: Uint8Array<ArrayBuffer> = graphOf((graph) => {
  graph.input('x', 'float32', ['batch', 2]);
  graph.initializer('seven', tensorFrom('int64', [7, 1]));
  graph.node('Reshape', ['x', 'seven'], {}, { outputs: ['y'] });
  graph.output('y', 'float32', [7, 1]);
});

/** The factor of the version that answers. */
export async function factorOf(model: Model): Promise<number> {
  const { y } = await model.run({ x: [1, -2] });
  const [one, two] = y?.data ?? [];
  expect(two).toBe(-2 * Number(one));
  return Number(one);
}

/** Code of the Inlay error that a promise is rejected with. */
export async function codeOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => 'fulfilled',
    (error: unknown) => codeIn(error),
  );
}

export function codeIn(error: unknown): string {
  return isInlayError(error) ? error.code : `not an InlayError: ${String(error)}`;
}

/** An answer on its way from the server to a device. */
export interface Answer {
  readonly status: number;
  readonly type: string;
  readonly bytes: Uint8Array;
}

/** What becomes of an answer; `cut` breaks the connection halfway. */
export type Spoiler = (path: string, real: Answer) => Answer | 'cut' | undefined | void | Promise<void>;

/** A proxy between devices and a server. */
export interface Network {
  readonly url: string;
  spoil: Spoiler | undefined;
  /** Paths that were asked for since the last call. */
  requests(): string[];
  /** From here on, connections are refused. */
  goDown(): Promise<void>;
  comeBack(): Promise<void>;
}

async function openNetwork(serverUrl: string): Promise<Network> {
  const paths: string[] = [];
  const proxy = createServer((request, response) => {
    void (async () => {
      const path = request.url ?? '';
      paths.push(path);
      const etag = request.headers['if-none-match'];
      const real = await fetch(serverUrl + path, {
        headers: { 'accept-encoding': 'identity', ...(etag !== undefined && { 'if-none-match': etag }) },
      });
      const answer = {
        status: real.status,
        type: real.headers.get('content-type') ?? '',
        bytes: new Uint8Array(await real.arrayBuffer()),
      };
      const spoiled = await network.spoil?.(path, answer);
      const { status, type, bytes } = spoiled === undefined || spoiled === 'cut' ? answer : spoiled;
      const tag = spoiled === undefined ? real.headers.get('etag') : null;
      response.writeHead(status, {
        ...(type !== '' && { 'content-type': type }),
        ...(tag !== null && { etag: tag }),
        ...(status !== 304 && { 'content-length': bytes.length }),
      });
      if (spoiled === 'cut') response.write(bytes.subarray(0, bytes.length >> 1), () => response.destroy());
      else response.end(bytes);
    })().catch(() => response.destroy());
  });
  proxy.listen(0, '127.0.0.1');
  await once(proxy, 'listening');
  const { port } = proxy.address() as AddressInfo;
  const goDown = async (): Promise<void> => {
    const closed = once(proxy, 'close');
    proxy.close();
    proxy.closeAllConnections();
    await closed;
  };
  const network: Network = {
    url: `http://127.0.0.1:${port}`,
    spoil: undefined,
    requests: () => paths.splice(0),
    goDown,
    comeBack: async () => {
      proxy.listen(port, '127.0.0.1');
      await once(proxy, 'listening');
    },
  };
  onTestFinished(async () => {
    if (proxy.listening) await goDown();
  });
  return network;
}

/** A server with its publisher, and the network that devices reach it through. */
export interface World {
  readonly server: TestServer;
  readonly network: Network;
  readonly root: string;
  /** Publishes a version, by default one that multiplies by its number, and rolls it out. */
  ship(
    version: number,
    bytes?: Uint8Array<ArrayBuffer>,
    percent?: number,
  ): Promise<{ readonly sha256: string }>;
  rollOut(version: number, percent: number): Promise<void>;
}

export async function startWorld(): Promise<World> {
  const server = await startTestServer({ platform: testPlatform(Date.now()) });
  const publisher = await install(server);
  const network = await openNetwork(server.url);
  const [root = ''] = (await tipOf(server)).roots;
  const rollOut = async (version: number, percent: number): Promise<void> => {
    await expectOk(
      // A machine that is busy with other tests for seconds says nothing of a release.
      server.put(
        'rollouts/stable/digits',
        JSON.stringify({ version: String(version), percent, trial: { maxP95Percent: 1_000_000 } }),
      ),
    );
  };
  return {
    server,
    network,
    root,
    rollOut,
    ship: async (version, bytes = scale(version), percent = 100) => {
      const published = await publish(server, publisher, String(version), bytes);
      await rollOut(version, percent);
      return published;
    },
  };
}

/** One installation of an app. */
export interface Device {
  readonly inlay: Inlay;
  readonly directory: string;
  load(): Promise<Model>;
}

/** Options of {@link startDevice}. */
export interface DeviceOptions {
  readonly directory?: string;
  readonly fs?: FileSystem;
  readonly backends?: readonly Backend[];
  readonly maxModelBytes?: number;
  /** How much the clock of the device is ahead. */
  readonly aheadMs?: () => number;
}

/** Starts an installation; it is closed at the end of the test. */
export async function startDevice(world: World, options: DeviceOptions = {}): Promise<Device> {
  const { directory = await temporaryDirectory(), fs, maxModelBytes, aheadMs = () => 0 } = options;
  const inlay = createInlay({
    backends: options.backends ?? backends,
    device: 'cpu',
    ...(maxModelBytes !== undefined && { maxModelBytes }),
    store: openFsStore({ directory, ...(fs && { fs }) }),
    platform: platformOf(aheadMs),
    sync: { url: world.network.url, root: world.root },
  });
  onTestFinished(() => inlay.close());
  return { inlay, directory, load: () => inlay.load({ name: 'digits' }) };
}

/** Node's platform, with retries that hardly wait. */
export function platformOf(aheadMs: () => number = () => 0): ReturnType<typeof nodePlatform> {
  return { ...nodePlatform(), random: () => 0.01, now: () => Date.now() + aheadMs() };
}

/** Checks for updates. @returns what the model says of it: `swapped to 2`, or the code of its failure. */
export async function update(inlay: Inlay, model: Model): Promise<string> {
  const outcome = nextOf(model);
  await inlay.checkForUpdates();
  return outcome;
}

/** What a model says next. */
export function nextOf(model: Model): Promise<string> {
  return new Promise((resolve) => {
    const stops = [
      model.on('swapped', ({ to }) => settle(`swapped to ${to}`)),
      model.on('update-failed', ({ error }) => settle(codeIn(error))),
    ];
    const settle = (outcome: string): void => {
      for (const stop of stops) stop();
      resolve(outcome);
    };
  });
}

/** Lists the blobs in the store of a device, where nothing may be left over. */
export async function blobsOf(directory: string): Promise<readonly string[]> {
  // What was learned about a model is still being written when it has been loaded.
  await vi.waitFor(async () => {
    expect(await readdir(join(directory, 'tmp'))).toEqual([]);
    const records = await readdir(join(directory, 'records'));
    expect(records.filter((name) => name.includes('lock'))).toEqual([]);
  });
  const blobs = await readdir(join(directory, 'blobs'));
  const contents = await Promise.all(blobs.map((name) => readFile(join(directory, 'blobs', name), 'latin1')));
  // The signed metadata that proves where files are from is kept as well.
  return blobs.filter((_, at) => contents[at]?.includes('"_type":"targets"') === false);
}
