/** The inference libraries of `inlay` on Node, and where they run. */
import { onnxruntimeNode } from './backends/onnxruntime-node.ts';
import { onnxruntimeWeb } from './backends/onnxruntime-web.ts';
import type { Backend, Placement } from './core/backend.ts';
import { countCores } from './workers/node-cores.ts';
import { spawnNodeProcess } from './workers/node-process.ts';
import { spawnNodeWorker, type NodeWorkerData } from './workers/node.ts';
import { createPool } from './workers/pool.ts';
import { createWorkerBackend } from './workers/realm.ts';

/** Options of {@link createBackends}. */
export interface NodeBackendOptions {
  /**
   * Where native code runs.
   * - `worker`: in worker threads; the event loop of the host stays free.
   * - `inline`: on the calling thread, which saves the hop of some 20 µs but blocks it for the length of a run.
   * - `process`: in child processes, which cost more to reach, can be ended in the middle of a run, and take nothing
   *   along when they crash.
   * - `auto`, the default: in worker threads, or inline when a model's run is shorter than the way to a worker.
   */
  readonly placement?: Placement | 'auto';
  /**
   * How many workers a library may have, at least 1; they are started when they are needed. Default: the cores that
   * are there and that the container may use, or one for `process`.
   */
  readonly workers?: number;
  /**
   * Milliseconds that one run may take, 10 times that (at least 30 s) to load a model; what takes longer is ended, and
   * its call rejects with `ERR_INLAY_WORKER_LOST`. Only child processes and WebAssembly can be ended: a thread with
   * native code cannot. Default: no limit.
   */
  readonly runTimeoutMs?: number;
  /**
   * Bytes of memory that one child process may take, all in all; it is killed within 200 ms of taking more. Its calls
   * are made again once, and reject with `ERR_INLAY_WORKER_LOST` when that fails, too. In a worker thread only the JavaScript heap is limited. Default: no limit.
   */
  readonly maxWorkerBytes?: number;
  /**
   * Shares the memory of weights that models keep in files of their own between workers, at the price of slower runs.
   * Those files must not change while a model is open. Default false.
   */
  readonly sharedWeights?: boolean;
  /** Lets a software GPU adapter count as a GPU. Default false: it is many times slower than the CPU. */
  readonly allowSoftwareAdapter?: boolean;
}

/** Best first. */
const LIBRARIES = ['onnxruntime-node', 'onnxruntime-web'] as const;

/**
 * Creates the default backends: onnxruntime-node, and onnxruntime-web's WASM where there is no native binary.
 * Several Inlays of one process may share them; close them after the last one.
 * @throws `TypeError` or `RangeError` for an option that is none.
 */
export function createBackends(options: NodeBackendOptions = {}): readonly Backend[] {
  const { placement = 'auto' } = options;
  assertOptions(options);
  const { workers } = options;
  const sizes = {
    worker: workers ?? (placement === 'auto' || placement === 'worker' ? countCores().usable : 1),
    process: workers ?? 1,
  };
  return LIBRARIES.map((library) => {
    const create = (where: Placement): Backend =>
      where === 'inline'
        ? createInline(library, options)
        : createPool(
            Array.from({ length: sizes[where] }, (_, index) => createMember(library, index, where, options)),
          );
    // None of them starts anything before it is used.
    const isolated = createMember(library, 0, 'process', { ...options, runTimeoutMs: TRIAL_MS }, 'trial');
    const elsewhere =
      placement === 'auto'
        ? { worker: create('worker'), inline: create('inline'), process: create('process') }
        : undefined;
    const chosen = elsewhere?.worker ?? create(placement as Placement);
    return {
      ...chosen,
      ...(elsewhere && { elsewhere }),
      isolated,
      close: async () => {
        await Promise.all([...Object.values(elsewhere ?? { chosen }), isolated].map((one) => one.close()));
      },
    };
  });
}

/** Longest time that a release may take to open, or for one run, where it is tried out, in milliseconds. */
const TRIAL_MS = 20_000;
/** How long the process in which releases are tried out waits for the next one, in milliseconds: starting it costs most. */
const LINGER_MS = 5000;

function createInline(library: NodeWorkerData['library'], options: NodeBackendOptions): Backend {
  const { allowSoftwareAdapter = false, sharedWeights = false } = options;
  return library === 'onnxruntime-node'
    ? onnxruntimeNode({ ort: () => import('onnxruntime-node'), allowSoftwareAdapter, sharedWeights })
    : onnxruntimeWeb({ ort: () => import('onnxruntime-web') });
}

function createMember(
  library: NodeWorkerData['library'],
  index: number,
  placement: 'worker' | 'process',
  options: NodeBackendOptions,
  purpose: 'use' | 'trial' = 'use',
): Backend {
  const { allowSoftwareAdapter = false, sharedWeights = false, runTimeoutMs, maxWorkerBytes } = options;
  const script = new URL('./worker.js', import.meta.url);
  const data: NodeWorkerData = { library, options: { allowSoftwareAdapter, sharedWeights } };
  return createWorkerBackend({
    name: library,
    placement,
    slotName: `${placement} ${index + 1}`,
    // The memory of WebAssembly never shrinks; only the end of its worker gives it back.
    endWhenEmpty: library === 'onnxruntime-web' || purpose === 'trial',
    ...(purpose === 'trial' && { createTimeoutMs: TRIAL_MS, lingerMs: LINGER_MS }),
    ...(runTimeoutMs !== undefined && { runTimeoutMs }),
    spawn: () =>
      placement === 'process'
        ? spawnNodeProcess(script, data, maxWorkerBytes === undefined ? {} : { maxBytes: maxWorkerBytes })
        : spawnNodeWorker(script, data, maxWorkerBytes === undefined ? {} : { maxHeapBytes: maxWorkerBytes }),
  });
}

const PLACEMENTS = ['auto', 'worker', 'inline', 'process'];

function assertOptions({ placement = 'auto', ...numbers }: NodeBackendOptions): void {
  if (!PLACEMENTS.includes(placement)) {
    throw new TypeError(
      `placement is 'auto', 'worker', 'inline' or 'process', got ${JSON.stringify(placement)}.`,
    );
  }
  const { workers = 1, runTimeoutMs = 1, maxWorkerBytes = 1 } = numbers;
  if (!Number.isSafeInteger(workers) || workers < 1) {
    throw new RangeError(`workers is a whole number of at least 1, got ${workers}.`);
  }
  for (const [name, value] of Object.entries({ runTimeoutMs, maxWorkerBytes })) {
    if (!(value > 0)) throw new RangeError(`${name} is a number above 0, got ${value}.`);
  }
}
