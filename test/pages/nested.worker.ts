/** A dedicated worker of the app with an Inlay of its own. */
import { createInlay } from 'inlay';

const inlay = createInlay();
globalThis.addEventListener('message', ({ data }: MessageEvent<{ bytes: number[]; feeds: object }>) => {
  void (async () => {
    const model = await inlay.load(Uint8Array.from(data.bytes));
    const { y } = await model.run(data.feeds as Record<string, number[]>);
    globalThis.postMessage({ y: Array.from(y?.data as Float32Array), info: inlay.info().models[0] });
  })();
});
