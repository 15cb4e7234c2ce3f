/** A SharedWorker with an Inlay of its own: it has no `Worker`. */
import { createInlay } from 'inlay';

const inlay = createInlay();
globalThis.addEventListener('connect', (event) => {
  const [port] = (event as MessageEvent).ports;
  port?.addEventListener('message', ({ data }: MessageEvent<{ bytes: number[]; feeds: object }>) => {
    void (async () => {
      const model = await inlay.load(Uint8Array.from(data.bytes));
      const { y } = await model.run(data.feeds as Record<string, number[]>);
      port.postMessage({ y: Array.from(y?.data as Float32Array), info: inlay.info().models[0] });
    })();
  });
  port?.start();
});
