/**
 * A trainer whose weights are the same bits everywhere: it uses nothing but +, -, *, /, square roots, floors and rounding to
 * float32, which IEEE 754 defines to the last bit.
 */

/** Random numbers in [0, 1), the same for a seed. @param {number} seed */
export function mulberry32(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

/** Nearly normal: the sum of twelve uniform numbers. */
export function normal(random) {
  let sum = -6;
  for (let i = 0; i < 12; i += 1) sum += random();
  return sum;
}

/** e^x by reduction to |r| ≤ ln 2 / 2 and a Taylor series. */
function exp(x) {
  const halvings = Math.floor(x / Math.LN2 + 0.5);
  const rest = x - halvings * Math.LN2;
  let term = 1;
  let sum = 1;
  for (let i = 1; i <= 13; i += 1) {
    term = (term * rest) / i;
    sum += term;
  }
  const factor = halvings < 0 ? 0.5 : 2;
  for (let i = Math.abs(halvings); i > 0; i -= 1) sum *= factor;
  return sum;
}

/** Natural logarithm by Newton's method on {@link exp}. */
function log(x) {
  let y = 0;
  for (let i = 0; i < 60; i += 1) y += x / exp(y) - 1;
  return y;
}

/** Turns scores into probabilities, in place. */
function softmax(scores) {
  const highest = scores.reduce((a, b) => (b > a ? b : a));
  let sum = 0;
  for (let i = 0; i < scores.length; i += 1) sum += scores[i] = exp(scores[i] - highest);
  for (let i = 0; i < scores.length; i += 1) scores[i] /= sum;
  return scores;
}

/**
 * A dense layer; weights are [inputs, outputs] in C order.
 * @typedef {{ inputs: number, outputs: number, w: Float32Array, b: Float32Array }} Layer
 */

/** A network with ReLU between its dense layers. @returns {Layer[]} */
export function createNet(sizes, seed) {
  const random = mulberry32(seed);
  return sizes.slice(1).map((outputs, at) => {
    const inputs = sizes[at];
    const scale = Math.sqrt(2 / inputs);
    const w = Float32Array.from({ length: inputs * outputs }, () => normal(random) * scale);
    return { inputs, outputs, w, b: new Float32Array(outputs) };
  });
}

/** Copies a network, to train it on. @param {readonly Layer[]} layers */
export function copyOf(layers) {
  return layers.map(({ w, b, ...sizes }) => ({ ...sizes, w: w.slice(), b: b.slice() }));
}

/**
 * Points around three centres for each class. Another shift stretches the centres: a new domain of the same task.
 * @returns a function that draws an example
 */
export function createTask({ seed, classes, inputs, shift }) {
  const random = mulberry32(seed);
  const centres = Array.from({ length: classes * 3 }, () =>
    Float32Array.from({ length: inputs }, () => normal(random)),
  );
  return (draw) => {
    const which = Math.floor(draw() * centres.length);
    const centre = centres[which];
    const x = new Float32Array(inputs);
    for (let i = 0; i < inputs; i += 1)
      x[i] = centre[i] * (1 + shift * ((which + i) % 3)) * 0.5 + normal(draw) * 1.2;
    return { x, y: which % classes };
  };
}

function forward(layers, x) {
  const values = [x];
  layers.forEach(({ inputs, outputs, w, b }, at) => {
    const from = values[at];
    const sums = new Float64Array(outputs);
    for (let i = 0, row = 0; i < inputs; i += 1, row += outputs) {
      const value = from[i];
      if (value === 0) continue;
      for (let j = 0; j < outputs; j += 1) sums[j] += value * w[row + j];
    }
    const isLast = at === layers.length - 1;
    values.push(
      Float32Array.from(sums, (sum, j) => {
        const score = sum + b[j];
        return isLast || score > 0 ? score : 0;
      }),
    );
  });
  return values;
}

/**
 * Trains in place with Adam (Kingma & Ba, arXiv:1412.6980).
 * @param {Layer[]} layers
 * @param {{ draw: Function, steps: number, batch: number, rate: number, seed: number, from?: number }} options
 * Layers before `from` stay as they are.
 */
export function train(layers, { draw, steps, batch, rate, seed, from = 0 }) {
  const random = mulberry32(seed);
  const zeros = () => layers.map(({ w, b }) => [new Float32Array(w.length), new Float32Array(b.length)]);
  const [means, squares] = [zeros(), zeros()];
  let [bias1, bias2] = [1, 1];
  for (let step = 0; step < steps; step += 1) {
    const gradients = zeros();
    for (let k = 0; k < batch; k += 1) addGradients(layers, gradients, draw(random), batch, from);
    bias1 *= 0.9;
    bias2 *= 0.999;
    layers.forEach(({ w, b }, l) => {
      if (l < from) return;
      [w, b].forEach((weights, part) => {
        const [g, m, v] = [gradients[l][part], means[l][part], squares[l][part]];
        for (let i = 0; i < weights.length; i += 1) {
          m[i] = 0.9 * m[i] + 0.1 * g[i];
          v[i] = 0.999 * v[i] + 0.001 * g[i] * g[i];
          weights[i] -= (rate * (m[i] / (1 - bias1))) / (Math.sqrt(v[i] / (1 - bias2)) + 1e-8);
        }
      });
    });
  }
  return layers;
}

function addGradients(layers, gradients, { x, y }, batch, from) {
  const values = forward(layers, x);
  let delta = softmax(Float64Array.from(values.at(-1)));
  delta[y] -= 1;
  for (let j = 0; j < delta.length; j += 1) delta[j] /= batch;
  for (let l = layers.length - 1; l >= from; l -= 1) {
    const { inputs, outputs, w } = layers[l];
    const [gw, gb] = gradients[l];
    const input = values[l];
    const before = new Float64Array(inputs);
    for (let j = 0; j < outputs; j += 1) gb[j] += delta[j];
    for (let i = 0, row = 0; i < inputs; i += 1, row += outputs) {
      const value = input[i];
      if (l > 0 && value === 0) continue;
      let sum = 0;
      for (let j = 0; j < outputs; j += 1) {
        gw[row + j] += value * delta[j];
        sum += w[row + j] * delta[j];
      }
      before[i] = sum;
    }
    delta = before;
  }
}

/** Mean cross entropy on examples, in nats. @param {readonly Layer[]} layers */
export function lossOf(layers, examples) {
  let sum = 0;
  for (const { x, y } of examples) {
    const chances = softmax(Float64Array.from(forward(layers, x).at(-1)));
    sum -= log(chances[y] > 1e-12 ? chances[y] : 1e-12);
  }
  return sum / examples.length;
}

/** The most likely class of each example. @param {readonly Layer[]} layers */
export function classesOf(layers, examples) {
  return examples.map(({ x }) => {
    const scores = forward(layers, x).at(-1);
    return scores.indexOf(scores.reduce((a, b) => (b > a ? b : a)));
  });
}

/**
 * Classifies bags of words by the mean of their embeddings, trained with plain gradient descent: words that did not occur keep
 * their rows to the last bit.
 * @typedef {{ width: number, classes: number, table: Float32Array, w: Float32Array, b: Float32Array }} Bag
 */

/** @returns {Bag} */
export function createBag({ words, width, classes, seed }) {
  const random = mulberry32(seed);
  const table = Float32Array.from({ length: words * width }, () => normal(random) * 0.3);
  const w = Float32Array.from({ length: width * classes }, () => normal(random) * 0.2);
  return { width, classes, table, w, b: new Float32Array(classes) };
}

/**
 * Trains in place, for examples whose words are as common as 1 / rank, and whose class is that of the word `rank % classes`
 * that is most of them.
 * @param {Bag} bag
 */
export function trainBag(bag, { steps, batch, rate, seed, offset }) {
  const { width, classes, table, w, b } = bag;
  const words = table.length / width;
  const random = mulberry32(seed);
  for (let step = 0; step < steps * batch; step += 1) {
    const votes = new Uint8Array(classes);
    const drawn = Array.from({ length: 12 }, () => {
      // 1 / rank: the cube is near enough, and needs no power that is not exact.
      const place = random();
      const word = Math.floor(place * place * place * words);
      votes[(word + offset) % classes] += 1;
      return word * width;
    });
    const mean = new Float64Array(width);
    for (const row of drawn) for (let i = 0; i < width; i += 1) mean[i] += table[row + i] / drawn.length;
    const scores = Float64Array.from(b);
    for (let i = 0; i < width; i += 1)
      for (let j = 0; j < classes; j += 1) scores[j] += mean[i] * w[i * classes + j];
    softmax(scores)[votes.indexOf(votes.reduce((x, y) => (y > x ? y : x)))] -= 1;
    for (let i = 0; i < width; i += 1) {
      let back = 0;
      for (let j = 0; j < classes; j += 1) {
        back += w[i * classes + j] * scores[j];
        w[i * classes + j] -= rate * mean[i] * scores[j];
      }
      for (const row of drawn) table[row + i] -= (rate * back) / drawn.length;
    }
    for (let j = 0; j < classes; j += 1) b[j] -= rate * scores[j];
  }
  return bag;
}
