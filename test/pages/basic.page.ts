/** A page that runs a model. */
import { createInlay } from 'inlay';
import { onnxruntimeWeb } from 'inlay/backends/onnxruntime-web';

const inlay = createInlay({ backends: [onnxruntimeWeb({ ort: () => import('onnxruntime-web/wasm') })] });

Object.assign(globalThis, {
  api: {
    run: async (bytes: readonly number[], feeds: Readonly<Record<string, readonly number[]>>) => {
      const model = await inlay.load(Uint8Array.from(bytes));
      const { y } = await model.run(feeds);
      return Array.from(y?.data as Float32Array);
    },
  },
});
