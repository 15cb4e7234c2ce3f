/** A page that opens one session of onnxruntime-web itself, and tells what became of it. */
import { onnxruntimeWeb } from 'inlay/backends/onnxruntime-web';
import { onnxruntimeWebGpu } from 'inlay/backends/onnxruntime-web-gpu';
import { isInlayError, Tensor, type Backend } from 'inlay';

/** Plain data for {@link onnxruntimeWeb}. */
interface Options {
  readonly wasmPaths?: string | { readonly mjs?: string; readonly wasm?: string };
  /** Where to fetch the binary from, to be passed in. */
  readonly wasmBinary?: string;
  readonly threads?: number;
}

const ones = new Tensor('float32', [1, 4], new Float32Array(4).fill(1));
let backend: Backend | undefined;

async function open(make: () => Promise<Backend>, bytes: readonly number[], provider: string) {
  try {
    backend ??= await make();
    const session = await backend.createSession({ bytes: Uint8Array.from(bytes) }, { provider });
    const { y } = await session.run({ a: ones, b: ones });
    const { intraOpThreads, threadsReason } = session;
    return { y: Array.from(y?.data as Float32Array), intraOpThreads, threadsReason };
  } catch (error) {
    if (!isInlayError(error)) throw error;
    return { code: error.code, message: error.message, details: error.details };
  }
}

const readBinary = async (url: string): Promise<ArrayBuffer> => (await fetch(url)).arrayBuffer();

Object.assign(globalThis, {
  api: {
    wasm: ({ wasmBinary, ...options }: Options, bytes: readonly number[]) => {
      const ort = () => import('onnxruntime-web/wasm');
      const make = async (): Promise<Backend> =>
        wasmBinary === undefined
          ? onnxruntimeWeb({ ort, ...options })
          : onnxruntimeWeb({ ort, ...options, wasmBinary: await readBinary(wasmBinary) });
      return open(make, bytes, 'wasm');
    },
    gpu: (options: Pick<Options, 'wasmPaths'>, bytes: readonly number[]) => {
      const ort = () => import('onnxruntime-web/webgpu');
      const make = async (): Promise<Backend> =>
        onnxruntimeWebGpu({ ort, ...options, allowSoftwareAdapter: true });
      return open(make, bytes, 'webgpu');
    },
  },
});
