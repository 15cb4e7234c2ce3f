import { performance } from 'node:perf_hooks';

const [how, path] = process.argv.slice(2);
const input = path.includes('cnn')
  ? { name: 'image', shape: [1, 1, 28, 28], data: new Float32Array(784) }
  : { name: 'x', shape: [1, 4], data: new Float32Array(4) };

const started = performance.now();
let imported;
if (how === 'raw') {
  const ort = await import('onnxruntime-node');
  imported = performance.now();
  const session = await ort.InferenceSession.create(path, { intraOpNumThreads: 1, interOpNumThreads: 1 });
  await session.run({ [input.name]: new ort.Tensor('float32', input.data, input.shape) });
} else {
  const { createInlay } = await import('inlay');
  // Inlay imports the library when it loads; the raw way has to import it first.
  if (how === 'inline') await import('onnxruntime-node');
  imported = performance.now();
  const inlay = createInlay({ placement: how, device: 'cpu' });
  const model = await inlay.load(path);
  await model.run({ [input.name]: input.data });
}
const ended = performance.now();
console.log(JSON.stringify({ totalMs: ended - started, workMs: ended - imported }));
