/**
 * Adapter around `onnxruntime-web`: ONNX Runtime as WebAssembly, on the CPU, in any runtime that allows it.
 * @module inlay/backends/onnxruntime-web
 */
import type { Backend, Session } from '../core/backend.ts';
import { callingThread, createSessionSet, unusableError, type LibraryLoader } from '../core/library.ts';
import {
  createOrtRealm,
  guardSession,
  PACKAGE_NAME,
  type OrtWebModule,
  type WasmFiles,
} from './onnxruntime-web-realm.ts';
import { wrapSession } from './onnxruntime.ts';

export type { OrtWebModule, WasmFiles, WasmPaths } from './onnxruntime-web-realm.ts';

/** Options of {@link onnxruntimeWeb}. */
export interface OnnxruntimeWebOptions extends WasmFiles {
  /**
   * The module, or a function that imports it: `onnxruntime-web` in Node, `onnxruntime-web/wasm` elsewhere, which is
   * smaller.
   */
  readonly ort: LibraryLoader<OrtWebModule>;
  /**
   * Threads of WebAssembly, at least 1. They need a cross-origin isolated page; elsewhere there is one, and
   * `Session.threadsReason` says why. Default: as many as the first session asks for, which is 1 unless it says more.
   */
  readonly threads?: number;
}

const PROVIDER = 'wasm';

/**
 * Creates the backend of `onnxruntime-web` with its WebAssembly provider.
 *
 * WebAssembly is initialised once per realm, with the threads of the first session, and the library keeps a failure
 * for good: after `ERR_INLAY_BACKEND_UNAVAILABLE` only a new realm, such as a new worker, helps. Memory that a model has
 * taken is reused by later models and is given back when the realm ends.
 *
 * @example
 * const backend = onnxruntimeWeb({ ort: () => import('onnxruntime-web/wasm') });
 */
export function onnxruntimeWeb(options: OnnxruntimeWebOptions): Backend {
  const realm = createOrtRealm(options.ort, options);
  const sessions = createSessionSet(PACKAGE_NAME);
  const slots = callingThread();

  return {
    name: PACKAGE_NAME,
    providers: async () => {
      await realm.load();
      return [{ name: PROVIDER, device: 'cpu' }];
    },
    createSession: (source, { provider, intraOpThreads = 1 }) =>
      sessions.open(async () => {
        if (provider !== PROVIDER) throw unusableError(provider, `this backend offers ${PROVIDER}`);
        const wanted = options.threads ?? intraOpThreads;
        const refusal = wanted > 1 ? refuseThreads() : undefined;
        const threads = refusal === undefined ? wanted : 1;
        const session = await realm.inTurn(() => realm.create(source, PROVIDER, threads));
        return wrapSession(guardSession(session, realm.inTurn), {
          provider,
          slots,
          ...countThreads(realm.threads(), wanted, refusal),
        });
      }),
    close: () => sessions.close(),
  };
}

/** Why there can be one thread only; `undefined` where there can be more. */
function refuseThreads(): string | undefined {
  const isolated = (globalThis as { crossOriginIsolated?: boolean }).crossOriginIsolated;
  if (isolated === true) return undefined;
  return isolated === undefined
    ? 'WebAssembly gets threads in cross-origin isolated pages only'
    : 'the page is not cross-origin isolated: it needs the headers Cross-Origin-Opener-Policy: same-origin and Cross-Origin-Embedder-Policy: require-corp';
}

function countThreads(
  threads: number | undefined,
  wanted: number,
  refusal: string | undefined,
): Required<Pick<Session, 'intraOpThreads'>> & Pick<Session, 'threadsReason'> {
  const intraOpThreads = threads ?? 1;
  if (intraOpThreads >= wanted) return { intraOpThreads };
  const threadsReason =
    refusal ?? `the first session of this realm started WebAssembly with ${intraOpThreads}`;
  return { intraOpThreads, threadsReason };
}
