import { Tensor } from 'inlay';

/** Samples per second that the network was trained on. */
export const SAMPLE_RATE = 16_000;
/** Samples that one probability is about: 32 ms. */
export const WINDOW = 512;
const CONTEXT = 64;

/**
 * Listens to a stream: gives the probability of speech in each window of {@link WINDOW} samples.
 * What it has heard so far is in the state, which the network gives with every answer and takes with the next window.
 * @param {Pick<import('inlay').Model, 'run'>} model Silero VAD.
 */
export function createVad(model) {
  // The network sees the end of the previous window before the present one.
  let frame = new Float32Array(CONTEXT + WINDOW);
  let filled = 0;
  let state = new Tensor('float32', [2, 1, 128], new Float32Array(2 * 128));

  const runFrame = async () => {
    const input = new Tensor('float32', [1, frame.length], frame);
    const { output, stateN } = await model.run({ input, state, sr: SAMPLE_RATE });
    state = stateN;
    const next = new Float32Array(frame.length);
    next.set(frame.subarray(WINDOW));
    frame = next;
    filled = 0;
    return output.data[0];
  };

  return {
    /**
     * Takes the next samples, however many there are; await each call before the next one.
     * @param {Float32Array} samples Mono, {@link SAMPLE_RATE}, in [-1, 1].
     * @returns {Promise<number[]>} Probabilities of the windows that are complete now.
     */
    async process(samples) {
      const probabilities = [];
      for (let taken = 0; taken < samples.length;) {
        const part = samples.subarray(taken, taken + WINDOW - filled);
        frame.set(part, CONTEXT + filled);
        filled += part.length;
        taken += part.length;
        if (filled === WINDOW) probabilities.push(await runFrame());
      }
      return probabilities;
    },
    /** Fills the last window up with silence. @returns {Promise<number[]>} Its probability, if it held anything. */
    finish: async () => (filled === 0 ? [] : [await runFrame()]),
  };
}
