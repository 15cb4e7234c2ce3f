/**
 * `onnxruntime-react-native` 1.24 on `onnxruntime-node`: what its sources say that the native part does with its
 * arguments, and how it fails.
 */
import * as ort from 'onnxruntime-node';
import type { OrtReactNativeModule } from '../../src/backends/onnxruntime-react-native.ts';
import type { OrtSession, OrtSessionOptions, OrtTensor } from '../../src/backends/onnxruntime.ts';

/** What a fake library counts. */
export interface Observed {
  /** Threads that are running now, and the most that ran at once. */
  threads: number;
  mostThreads: number;
  /** Sessions that were not released. */
  sessions: number;
  /** Sessions that were released during a run: native code would use freed memory. */
  usedAfterFree: number;
  options: OrtSessionOptions[];
}

/** A fake library and what it has seen. */
export interface FakeLibrary {
  readonly ort: OrtReactNativeModule;
  readonly seen: Observed;
}

interface JsTensor extends OrtTensor {
  readonly cpuData?: unknown;
}

const NativeTensor: new (type: never, data: never, dims: readonly number[]) => ort.Tensor = ort.Tensor;

const ELEMENT_BYTES: Readonly<Record<string, number>> = {
  float32: 4,
  uint8: 1,
  int8: 1,
  uint16: 2,
  int16: 2,
  int32: 4,
  int64: 8,
  bool: 1,
  float16: 2,
  float64: 8,
  uint32: 4,
  uint64: 8,
};

/** Creates the library as an app has it that was built with `providers`. */
export function fakeLibrary(providers: readonly string[] = ['cpu', 'xnnpack', 'coreml']): FakeLibrary {
  const seen: Observed = { threads: 0, mostThreads: 0, sessions: 0, usedAfterFree: 0, options: [] };

  /** `AsyncWorker`: a thread for each call, and a string for an error. */
  const onThread = async <Result>(task: () => Promise<Result>): Promise<Result> => {
    seen.threads += 1;
    seen.mostThreads = Math.max(seen.mostThreads, seen.threads);
    try {
      return await task();
    } catch (error) {
      // oxlint-disable-next-line no-throw-literal
      throw error instanceof Error ? error.message : String(error);
    } finally {
      seen.threads -= 1;
    }
  };

  /** `SessionUtils.cpp`: unknown keys are ignored, unknown providers throw at once. */
  const parseOptions = (options: OrtSessionOptions): ort.InferenceSession.SessionOptions => {
    seen.options.push(options);
    for (const provider of options.executionProviders) {
      const name = typeof provider === 'string' ? provider : provider.name;
      if (!providers.includes(name)) throw new Error(`Unsupported execution provider: ${name}`);
    }
    return { logSeverityLevel: 4, intraOpNumThreads: options.intraOpNumThreads ?? 0 };
  };

  /** `TensorUtils.cpp`: the buffer of `cpuData` from its start, however the view lies in it. */
  const fromJs = (tensor: JsTensor): ort.Tensor => {
    const { cpuData, dims, type } = tensor;
    if (cpuData === undefined || dims === undefined || type === undefined) {
      throw new Error('Invalid tensor object: missing cpuData, dims, or type properties');
    }
    if (type === 'string') throw new Error('crash: characters are taken for std::string');
    const elementBytes = ELEMENT_BYTES[type];
    if (elementBytes === undefined) throw new Error(`Unsupported tensor data type: ${type}`);
    if (!ArrayBuffer.isView(cpuData)) throw new Error('Tensor data must be a TypedArray');
    const sizeBytes = dims.reduce((product, length) => product * length, 1) * elementBytes;
    if (cpuData.buffer.byteLength < sizeBytes) throw new Error('crash: read beyond the buffer');
    const Storage = storageOf(type);
    const data = new Storage(cpuData.buffer as ArrayBuffer, 0, sizeBytes / elementBytes);
    return new NativeTensor(type as never, data as never, dims);
  };

  const toJs = (tensor: ort.Tensor): OrtTensor => {
    if (tensor.type === 'string') throw new Error('never');
    if (tensor.type === 'float16' && !('Float16Array' in globalThis)) throw new Error('never');
    return tensor;
  };

  const create = async (
    source: string | Uint8Array,
    options: OrtSessionOptions = { executionProviders: ['cpu'] },
  ): Promise<OrtSession> => {
    const isPath = typeof source === 'string';
    // Of a model from memory, the whole buffer is taken, and the options are those that belong to the offset.
    const parsed = isPath ? parseOptions(options) : {};
    const native = await onThread(() =>
      isPath
        ? ort.InferenceSession.create(source.replace(/^file:\/\//, ''), parsed)
        : ort.InferenceSession.create(new Uint8Array(source.buffer), { logSeverityLevel: 4 }),
    );
    seen.sessions += 1;
    let runs = 0;
    let disposed = false;
    return {
      inputMetadata: native.inputMetadata,
      outputMetadata: native.outputMetadata,
      run: async (feeds: Readonly<Record<string, OrtTensor>>, fetches?: readonly string[]) => {
        for (const name of fetches ?? []) {
          if (!native.outputNames.includes(name))
            throw new RangeError(`'fetches' contains invalid output name: ${name}.`);
        }
        for (const name of native.inputNames) {
          if (feeds[name] === undefined) throw new Error(`input '${name}' is missing in 'feeds'.`);
        }
        const inputs = Object.fromEntries(
          Object.entries(feeds).map(([name, tensor]) => [name, fromJs(tensor)]),
        );
        runs += 1;
        const outputs = await onThread(async () => {
          const outcome = await native.run(inputs, fetches ?? native.outputNames);
          if (disposed) seen.usedAfterFree += 1;
          return outcome;
        }).finally(() => {
          runs -= 1;
        });
        try {
          return Object.fromEntries(Object.entries(outputs).map(([name, tensor]) => [name, toJs(tensor)]));
        } catch {
          // What is thrown while an answer is put together reaches nobody.
          return new Promise<never>(() => {});
        }
      },
      release: async () => {
        seen.sessions -= 1;
        disposed = true;
        if (runs > 0) seen.usedAfterFree += 1;
        await native.release();
      },
    };
  };

  return {
    seen,
    ort: {
      InferenceSession: { create },
      listSupportedBackends: () => providers.map((name) => ({ name })),
    },
  };
}

function storageOf(type: string): new (buffer: ArrayBuffer, offset: number, length: number) => unknown {
  const storages: Readonly<
    Record<string, new (buffer: ArrayBuffer, offset: number, length: number) => unknown>
  > = {
    float32: Float32Array,
    float64: Float64Array,
    float16: Uint16Array,
    int8: Int8Array,
    uint8: Uint8Array,
    bool: Uint8Array,
    int16: Int16Array,
    uint16: Uint16Array,
    int32: Int32Array,
    uint32: Uint32Array,
    int64: BigInt64Array,
    uint64: BigUint64Array,
  };
  return storages[type] ?? Uint8Array;
}
