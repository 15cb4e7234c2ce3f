/** Opens a model in a hand-written worker. */
export async function openRaw(bytes) {
  const worker = new Worker(new URL('./raw-worker.js', import.meta.url), { type: 'module' });
  const waiting = new Map();
  let next = 0;
  worker.onmessage = ({ data: { id, outputs } }) => {
    waiting.get(id)(outputs);
    waiting.delete(id);
  };
  const ask = (message) =>
    new Promise((resolve) => {
      const id = next++;
      waiting.set(id, resolve);
      worker.postMessage({ id, ...message });
    });
  await ask({ bytes });
  return { run: (feeds) => ask({ feeds }), close: () => worker.terminate() };
}
