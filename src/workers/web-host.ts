/** The worker's half in runtimes with dedicated workers. */
import type { Backend } from '../core/backend.ts';
import { hostBackend, NO_GUARD } from './host.ts';
import type { WebWorkerAnswer, WebWorkerMessage } from './web.ts';

/**
 * Hosts a backend in the worker whose script calls this, for `inWorker` on the page. To be called while the script runs
 * for the first time, not after an `await`. The worker's own messages stay free for other use. Does nothing in a page.
 *
 * @param create - makes the backend; receives the options that `inWorker` was given.
 * @example
 * hostInWorker(() => onnxruntimeWeb({ ort: () => import('onnxruntime-web/wasm') }));
 */
export function hostInWorker<Options extends object = object>(
  create: (options: Options) => Backend | Promise<Backend>,
): void {
  const scope: Partial<EventTarget> & { readonly document?: unknown } = globalThis;
  if (scope.document !== undefined) return;
  scope.addEventListener?.('message', (event) => {
    const { data } = event as MessageEvent<Partial<WebWorkerMessage> | undefined>;
    if (data?.inlay !== 'host' || data.port === undefined) return;
    void host(create, data.port, data.options as Options);
  });
}

async function host<Options extends object>(
  create: (options: Options) => Backend | Promise<Backend>,
  port: MessagePort,
  options: Options,
): Promise<void> {
  port.addEventListener('messageerror', () => {
    // A call that cannot be read would wait for its answer for good; a lost worker does not.
    fail(new Error('A call cannot be read in the worker.'));
  });
  try {
    hostBackend(await create(options), port, NO_GUARD);
    port.postMessage({ inlay: 'hosting' } satisfies WebWorkerAnswer);
  } catch (error) {
    fail(error);
  }
}

/** Fails the whole worker: its page hears of errors that nobody catches, and of no others. */
function fail(error: unknown): void {
  setTimeout(() => {
    throw error;
  });
}
