/**
 * Adapter around `onnxruntime-node`: native ONNX Runtime for Node, Bun and Deno.
 * @module inlay/backends/onnxruntime-node
 */
import { readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import type { Backend, ExecutionProvider } from '../core/backend.ts';
import { callingThread, createLoader, createSessionSet, type LibraryLoader } from '../core/library.ts';
import { BackendError } from '../core/errors.ts';
import { createError, wrapSession, type OrtModule, type OrtSessionOptions } from './onnxruntime.ts';

/** The part of the `onnxruntime-node` module that is used. */
export interface OrtNodeModule extends OrtModule {
  listSupportedBackends(): ReadonlyArray<{ readonly name: string; readonly bundled: boolean }>;
}

/** What is looked up on the machine before a provider is tried. */
export interface MachineProbe {
  /** As `process.platform`. */
  readonly os: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Names in a directory; empty if there is none. */
  list(directory: string): readonly string[];
  /** Directory of the library's native binary, `undefined` if it cannot be told. */
  readonly binaryDirectory: string | undefined;
}

/** Options of {@link onnxruntimeNode}. */
export interface OnnxruntimeNodeOptions {
  /** The module `onnxruntime-node`, or a function that imports it. */
  readonly ort: LibraryLoader<OrtNodeModule>;
  /** Lets a software Vulkan adapter count as a GPU. Default false: it is many times slower than the CPU. */
  readonly allowSoftwareAdapter?: boolean;
  /**
   * Maps weights that a model keeps in files of their own instead of copying them: sessions of the same file in several
   * workers or processes share their memory, and open at once. Those files must not change while a session is open.
   * Runs are slower, by up to a half on larger batches, since the library cannot lay weights out for its kernels. Only
   * for models with external data, opened by path. Default false.
   */
  readonly sharedWeights?: boolean;
  /** What to believe about the machine. Default: {@link probeMachine}. */
  readonly probe?: MachineProbe;
}

const NAME = 'onnxruntime-node';

/** Providers that Inlay knows, best first; others are left alone. */
const DEVICES: ReadonlyMap<string, ExecutionProvider['device']> = /* @__PURE__ */ new Map([
  ['tensorrt', 'gpu'],
  ['cuda', 'gpu'],
  ['dml', 'gpu'],
  ['coreml', 'npu'],
  ['webgpu', 'gpu'],
  ['cpu', 'cpu'],
]);

/**
 * Creates the backend of `onnxruntime-node`. Sessions run on the calling thread and block it for the length of a run.
 * A provider that cannot work here, such as CUDA without its library, is listed with the reason and not tried.
 *
 * @example
 * const backend = onnxruntimeNode({ ort: () => import('onnxruntime-node') });
 */
export function onnxruntimeNode(options: OnnxruntimeNodeOptions): Backend {
  const load = createLoader(options.ort, NAME);
  const sessions = createSessionSet(NAME);
  const slots = callingThread();

  const providers = async (): Promise<readonly ExecutionProvider[]> => {
    const supported = (await load()).listSupportedBackends();
    const probe = options.probe ?? probeMachine();
    const found: ExecutionProvider[] = [];
    for (const [name, device] of DEVICES) {
      const entry = supported.find((backend) => backend.name === name);
      if (entry === undefined) continue;
      const refusal = refuse(name, entry.bundled, probe, options.allowSoftwareAdapter ?? false);
      const features = name === 'cpu' ? { features: ['native'] } : {};
      found.push({ name, device, ...features, ...(refusal !== undefined && { refusal }) });
    }
    return found;
  };

  return {
    name: NAME,
    providers,
    createSession: (source, sessionOptions) =>
      sessions.open(async () => {
        const ort = await load();
        const { provider, intraOpThreads = 1 } = sessionOptions;
        if (provider !== 'cpu') assertUsable(provider, await providers());
        try {
          const ortOptions = toOrtOptions(provider, intraOpThreads, options.sharedWeights ?? false);
          const created =
            source.path === undefined
              ? await ort.InferenceSession.create(unshared(source.bytes), ortOptions)
              : await ort.InferenceSession.create(source.path, ortOptions);
          return wrapSession(created, { provider, slots, intraOpThreads });
        } catch (error) {
          throw createError(error, source, provider);
        }
      }),
    close: () => sessions.close(),
  };
}

function toOrtOptions(provider: string, intraOpThreads: number, sharedWeights: boolean): OrtSessionOptions {
  return {
    executionProviders: [provider],
    intraOpNumThreads: intraOpThreads,
    interOpNumThreads: 1,
    logSeverityLevel: 4,
    extra: {
      session: {
        // Threads that spin while they wait halve the throughput of a busy machine.
        intra_op: { allow_spinning: '0' },
        inter_op: { allow_spinning: '0' },
        // Weights are mapped as long as nobody needs them in another order.
        ...(sharedWeights && { disable_prepacking: '1' }),
      },
    },
  };
}

/** The library refuses views on shared memory. */
function unshared(bytes: Uint8Array): Uint8Array {
  return bytes.buffer instanceof SharedArrayBuffer ? new Uint8Array(bytes) : bytes;
}

function assertUsable(name: string, providers: readonly ExecutionProvider[]): void {
  const provider = providers.find((candidate) => candidate.name === name);
  const refusal =
    provider === undefined
      ? `this build offers ${providers.map((candidate) => candidate.name).join(', ')}`
      : provider.refusal;
  if (refusal === undefined) return;
  throw new BackendError(
    'ERR_INLAY_DEVICE_UNAVAILABLE',
    `The execution provider "${name}" is not usable here: ${refusal}.`,
    { details: { provider: name } },
  );
}

const NVIDIA_NODE = /^(nvidia\d+|nvhost-gpu|nvgpu|dxg)$/;
const GPU_NODE = /^(nvidia\d+|nvhost-gpu|nvgpu|dxg|kgsl-3d0|mali0)$/;
const SOFTWARE_DRIVER = /swiftshader|lavapipe|llvmpipe|lvp_icd/i;

function refuse(
  name: string,
  bundled: boolean,
  probe: MachineProbe,
  allowSoftwareAdapter: boolean,
): string | undefined {
  if (name === 'webgpu' && probe.os === 'linux') {
    const { VK_DRIVER_FILES, VK_ICD_FILENAMES } = probe.env;
    const drivers = VK_DRIVER_FILES ?? VK_ICD_FILENAMES ?? '';
    if (SOFTWARE_DRIVER.test(drivers)) {
      return allowSoftwareAdapter
        ? undefined
        : `the Vulkan driver "${drivers}" computes in software; allow it with allowSoftwareAdapter`;
    }
    const hasGpu =
      probe.list('/dev/dri').some((node) => node.startsWith('renderD')) ||
      probe.list('/dev').some((node) => GPU_NODE.test(node));
    return hasGpu ? undefined : 'there is no GPU device in /dev';
  }
  if (name === 'cuda' || name === 'tensorrt') {
    if (probe.os === 'linux' && !probe.list('/dev').some((node) => NVIDIA_NODE.test(node))) {
      return 'there is no NVIDIA device in /dev';
    }
    const directory = probe.binaryDirectory;
    const library = `onnxruntime_providers_${name}`;
    if (bundled || directory === undefined) return undefined;
    if (!probe.list(directory).some((file) => file.includes(library))) {
      return `${library} is not installed; run the install script of onnxruntime-node`;
    }
  }
  return undefined;
}

/** Looks at this machine: its devices, its environment and the files of the installed library. */
export function probeMachine(): MachineProbe {
  return {
    os: process.platform,
    env: process.env,
    list: listDirectory,
    binaryDirectory: findBinaryDirectory(),
  };
}

function listDirectory(directory: string): readonly string[] {
  try {
    return readdirSync(directory);
  } catch {
    // It is not there, or not to be seen: Deno shows `/dev` to programs that may do everything only.
    return [];
  }
}

function findBinaryDirectory(): string | undefined {
  try {
    const main = createRequire(import.meta.url).resolve(NAME);
    return join(dirname(main), '../bin/napi-v6', process.platform, process.arch);
  } catch {
    return undefined;
  }
}
