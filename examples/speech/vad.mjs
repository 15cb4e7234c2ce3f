import { Tensor } from 'inlay';
import { createStateful, frameAudio } from 'inlay/process';

/** Samples per second that the network was trained on. */
export const SAMPLE_RATE = 16_000;
/** Samples that one probability is about: 32 ms. */
export const WINDOW = 512;
const CONTEXT = 64;

/**
 * Listens to a stream: gives the probability of speech in each window of {@link WINDOW} samples.
 * What it has heard so far is in the state, which the network gives with every answer and takes with the next window.
 * @param {Pick<import('inlay').Model, 'run' | 'signature'>} model Silero VAD.
 */
export function createVad(model) {
  const stream = createStateful(model, { state: { stateN: 'state' } });
  // The network sees the end of the previous window before the present one.
  let waiting = new Float32Array(CONTEXT);

  const probabilityOf = async (frame) => {
    const input = new Tensor('float32', [1, frame.length], frame);
    const { output } = await stream.run({ input, sr: SAMPLE_RATE });
    return output.data[0];
  };

  /**
   * Takes the next samples, however many there are.
   * @param {Float32Array} samples Mono, {@link SAMPLE_RATE}, in [-1, 1].
   * @returns {Promise<number[]>} Probabilities of the windows that are complete now.
   */
  const process = (samples) => {
    const heard = new Float32Array(waiting.length + samples.length);
    heard.set(waiting);
    heard.set(samples, waiting.length);
    const frames = frameAudio(heard, { frameLength: CONTEXT + WINDOW, hopLength: WINDOW });
    waiting = heard.slice(frames.length * WINDOW);
    return Promise.all(frames.map(probabilityOf));
  };

  return {
    process,
    /** Fills the last window up with silence. @returns {Promise<number[]>} Its probability, if it held anything. */
    finish: async () =>
      waiting.length === CONTEXT ? [] : process(new Float32Array(CONTEXT + WINDOW - waiting.length)),
  };
}
