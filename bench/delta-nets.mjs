import { copyOf, createBag, createNet, createTask, train, trainBag } from './delta-train.mjs';

/** Widths of the dense network, from its inputs to its classes. */
export const SIZES = [256, 512, 512, 32];
/** Sizes of the classifier of words. */
export const BAG = { words: 20_000, width: 64, classes: 8 };

/** The task of the dense network; another shift is another domain. */
export const taskOf = (shift) => createTask({ seed: 7, classes: SIZES.at(-1), inputs: SIZES[0], shift });

/**
 * Trains every network of the bench.
 * @returns {Promise<Record<string, Float32Array>>} the weights of each, layer by layer, biases after their weights
 */
export async function trainAll() {
  const base = train(createNet(SIZES, 1), {
    draw: taskOf(0),
    steps: 120,
    batch: 32,
    rate: 1e-3,
    seed: 3,
  });
  const tune = (options) =>
    train(copyOf(base), { draw: taskOf(0.3), steps: 60, batch: 32, seed: 5, ...options });
  const words = trainBag(createBag({ ...BAG, seed: 2 }), {
    steps: 1500,
    batch: 32,
    rate: 0.5,
    seed: 4,
    offset: 0,
  });
  const wordsTuned = trainBag(
    { ...words, table: words.table.slice(), w: words.w.slice(), b: words.b.slice() },
    { steps: 60, batch: 32, rate: 0.02, seed: 6, offset: 1 },
  );
  const scratch = train(createNet(SIZES, 77), {
    draw: taskOf(0.3),
    steps: 10,
    batch: 32,
    rate: 1e-3,
    seed: 8,
  });
  const flat = (layers) => joined(layers.flatMap(({ w, b }) => [w, b]));
  return {
    base: flat(base),
    strong: flat(tune({ rate: 1e-4 })),
    mild: flat(tune({ rate: 1e-5 })),
    far: flat(tune({ rate: 3e-4, steps: 120 })),
    last: flat(tune({ rate: 1e-4, from: SIZES.length - 2, steps: 20 })),
    scratch: flat(scratch),
    words: joined([words.table, words.w, words.b]),
    wordsTuned: joined([wordsTuned.table, wordsTuned.w, wordsTuned.b]),
    ...(await (await import('./delta-tfjs.mjs')).convolutionalPair()),
  };
}

function joined(parts) {
  const all = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
