/* global ROOT -- what the app trusts; put in by the bench. */
/** A visit as an app has it: the model is loaded by its name, and asked once. */
import { createInlay } from 'inlay';

const inlay = createInlay({ device: 'cpu', sync: { url: location.origin, root: ROOT } });
const model = await inlay.load({ name: 'cnn' });
await model.run({ image: new Float32Array(784).fill(0.5) });
Object.assign(globalThis, {
  visit: { firstResultMs: performance.now(), version: model.version, store: inlay.info().store.kind },
});
