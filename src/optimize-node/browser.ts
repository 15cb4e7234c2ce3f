/** A browser as a runtime: the installed Chrome, Chromium or Edge with `onnxruntime-web`, on WebGPU or WebAssembly. */

import { join } from 'node:path';
import { createError, runError, toSpec, type OrtValueMetadata } from '../backends/onnxruntime.ts';
import type { TensorMap } from '../core/backend.ts';
import { DTYPES, type DType, type DTypeStorage } from '../core/dtype.ts';
import { BackendError, isInlayError } from '../core/errors.ts';
import { unusableError } from '../core/library.ts';
import { isSoftwareAdapter, nameOfAdapter, type AdapterInfo } from '../core/software-gpu.ts';
import { Tensor } from '../core/tensor.ts';
import type { OptimizeRuntime } from '../optimize/runtime.ts';
import { findBrowser } from './browser-find.ts';
import { launchBrowser } from './browser-process.ts';
import { openPageServer } from './browser-server.ts';
import { packageFolder } from './library-version.ts';
import { createRemoteRuntime, type Ask, type Verb, type Verbs } from './remote.ts';

/** Options of {@link openBrowserRuntime}. */
export interface BrowserRuntimeOptions {
  readonly device: 'webgpu' | 'wasm';
  /** Path of the browser. Default: {@link findBrowser}. */
  readonly browser?: string;
  /** Further flags of the browser, such as those that a graphics driver needs. */
  readonly flags?: readonly string[];
  /** Threads of WebAssembly, for all models. Default 1. */
  readonly threads?: number;
  /** Lets an adapter that computes in software count as a GPU. Default false: its figures say nothing of a GPU's. */
  readonly allowSoftwareAdapter?: boolean;
  /** Longest time, milliseconds, for the browser to start. Default 30 000. */
  readonly startMs?: number;
  /** Longest time, milliseconds, for one answer. Default 120 000. */
  readonly answerMs?: number;
}

/** What the page says when it has started. */
interface Hello {
  readonly info: AdapterInfo;
  readonly hasGpu: boolean;
  readonly isIsolated: boolean;
  readonly version?: string;
  readonly agent: string;
}

const LIBRARY = 'onnxruntime-web';
const BUNDLES = { webgpu: 'ort.webgpu.bundle.min.mjs', wasm: 'ort.wasm.bundle.min.mjs' } as const;

/**
 * Starts a browser without a window, with a profile of its own, on a page that is served from this machine only. Nothing
 * is downloaded. `close()` ends the browser and removes the profile.
 * @throws {@link BackendError} `ERR_INLAY_BACKEND_MISSING` if there is no browser or no library,
 * `ERR_INLAY_BACKEND_UNAVAILABLE` if the browser does not start in time, `ERR_INLAY_DEVICE_UNAVAILABLE` if it has no GPU,
 * or one that computes in software.
 */
export async function openBrowserRuntime(options: BrowserRuntimeOptions): Promise<OptimizeRuntime> {
  const { device, threads = 1, allowSoftwareAdapter = false, startMs = 30_000, answerMs = 120_000 } = options;
  const browser = options.browser ?? findBrowser();
  if (browser === undefined) {
    throw new BackendError(
      'ERR_INLAY_BACKEND_MISSING',
      'There is no Chrome, Chromium or Edge in the usual places; install one, or pass its path as "browser".',
    );
  }
  const folder = packageFolder(LIBRARY);
  if (folder === undefined) {
    throw new BackendError(
      'ERR_INLAY_BACKEND_MISSING',
      `${LIBRARY} is not installed; run "npm install ${LIBRARY}".`,
    );
  }
  const storages = Object.fromEntries(
    Object.entries(DTYPES).map(([name, { storage }]) => [name, storage.name]),
  );
  const server = await openPageServer({
    library: join(folder, 'dist'),
    bundle: BUNDLES[device],
    settings: { device, threads, storages },
    answerMs,
  });
  const launched = await launchBrowser(browser, options.flags ?? [], server.url, server.lose).catch(
    async (error: unknown) => {
      await server.close();
      throw error;
    },
  );
  const close = async (): Promise<void> => {
    await launched.close();
    await server.close();
  };
  try {
    const hello = (await server.hello(startMs)) as Hello;
    if (device === 'webgpu') assertGpu(hello, allowSoftwareAdapter);
    const ask = createAsk(server.ask, device, threads);
    return createRemoteRuntime({
      target: device,
      description: describe(hello, device, threads),
      connect: () => ask,
      can: [],
      close,
    });
  } catch (error) {
    await close();
    throw error;
  }
}

function assertGpu({ hasGpu, info }: Hello, allowSoftwareAdapter: boolean): void {
  if (!hasGpu) throw unusableError('webgpu', 'the browser has no adapter for this machine');
  if (allowSoftwareAdapter || !isSoftwareAdapter({ info })) return;
  throw unusableError(
    'webgpu',
    `the adapter "${nameOfAdapter({ info })}" computes in software; allow it with allowSoftwareAdapter`,
  );
}

function describe({ version, agent, info }: Hello, device: string, threads: number): string {
  const [browser = 'browser'] = /(Edg|Chrome|HeadlessChrome|Chromium)\/\d+/.exec(agent) ?? [];
  const place =
    device === 'webgpu' ? nameOfAdapter({ info }) : `${threads} ${threads === 1 ? 'thread' : 'threads'}`;
  return `${LIBRARY}${version === undefined ? '' : ` ${version}`}, ${device} in ${browser.replace('/', ' ')}, ${place}`;
}

/** Gives what the page answers its types and errors back. */
function createAsk(
  ask: (verb: Verb, body: object) => Promise<unknown>,
  provider: string,
  threads: number,
): Ask {
  const verbs: { readonly [Name in Verb]?: (body: Verbs[Name]['body']) => Promise<Verbs[Name]['answer']> } = {
    open: async ({ model, options }) => {
      if ((options.threads ?? threads) !== threads && provider === 'wasm') {
        throw new BackendError(
          'ERR_INLAY_BACKEND_UNAVAILABLE',
          `WebAssembly of this page was started with ${threads} threads, not ${options.threads ?? 1}; open another runtime.`,
          { details: { threads } },
        );
      }
      // A Buffer would travel as JSON.
      const bytes = new Uint8Array(model.buffer, model.byteOffset, model.byteLength);
      try {
        const opened = (await ask('open', { model: bytes, options })) as Opened;
        const { session, inputs, outputs } = opened;
        return {
          session,
          inputs: inputs.map(toSpec),
          outputs: outputs.filter(({ isTensor }) => isTensor).map(toSpec),
        };
      } catch (error) {
        throw isInlayError(error) ? error : createError(error, { bytes: model }, provider);
      }
    },
    run: async (body) => {
      const outputs = (await ask('run', body).catch(failed(body.feeds))) as Readonly<Record<string, Plain>>;
      return Object.fromEntries(Object.entries(outputs).map(([name, plain]) => [name, toTensor(plain)]));
    },
    time: async (body) => (await ask('time', body).catch(failed(body.feeds))) as readonly number[],
    release: async (body) => (await ask('release', body)) as null,
  };
  return async (verb, body) => {
    const answer = verbs[verb];
    if (answer === undefined) throw new TypeError(`A page cannot be asked for "${verb}".`);
    return answer(body);
  };
}

interface Opened {
  readonly session: number;
  readonly inputs: readonly OrtValueMetadata[];
  readonly outputs: readonly OrtValueMetadata[];
}

interface Plain {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly data: Uint8Array<ArrayBuffer> | readonly string[];
}

function toTensor({ dtype, shape, data }: Plain): Tensor {
  if (!(data instanceof Uint8Array)) return new Tensor(dtype, shape, data);
  const Storage = DTYPES[dtype].storage as unknown as new (buffer: ArrayBuffer) => DTypeStorage[DType];
  return new Tensor(dtype, shape, new Storage(data.buffer));
}

function failed(feeds: TensorMap): (error: unknown) => never {
  return (error) => {
    throw runError(error, feeds);
  };
}
