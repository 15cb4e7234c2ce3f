/** A worker of the app that hosts a backend of its choice, and has messages of its own. */
import { hostInWorker } from 'inlay/host';
import { onnxruntimeWeb } from 'inlay/backends/onnxruntime-web';

hostInWorker<{ readonly threads: number }>(({ threads }) =>
  onnxruntimeWeb({ ort: () => import('onnxruntime-web/wasm'), threads }),
);

globalThis.addEventListener('message', ({ data }: MessageEvent<unknown>) => {
  if (data === 'ping') globalThis.postMessage('pong');
  if (data === 'throw') throw new Error('A fault of the app.');
});
