/** Inputs that models are compared on. */

import type { TensorMap } from '../core/backend.ts';
import { InputError } from '../core/errors.ts';
import { exampleFeeds, randomFeeds } from '../engine/example-feeds.ts';
import { createFeedBinder } from '../engine/feeds.ts';
import type { OptimizeOptions } from './options.ts';

/** Inputs, held in memory. */
export interface Samples {
  readonly list: readonly TensorMap[];
  readonly isMadeUp: boolean;
}

const madeUp = 8;

/**
 * Reads the samples that are given, or else the first of the calibration data, or else makes some up.
 * @param warnings - hears what there is to say of them.
 * @throws {@link InputError} for samples that do not fit the model, or for none.
 */
export async function openSamples(
  bytes: Uint8Array,
  { runtime, samples, calibration, maxSamples = 64, seed = 1 }: OptimizeOptions,
  warnings: string[],
): Promise<Samples> {
  const session = await runtime.open(bytes);
  const { inputs, outputs } = session;
  await session.release();
  const signature = { inputs, outputs };
  const given = samples ?? (isRepeatable(calibration?.data) ? calibration?.data : undefined);
  if (given === undefined) {
    const isGuess = exampleFeeds(signature).guessed;
    warnings.push(
      `No inputs are given, so that answers were compared on ${madeUp} that are made up` +
        `${isGuess ? ', of sizes that are guessed' : ''}: accuracy on your data may be another. Give samples.`,
    );
    return {
      list: Array.from({ length: madeUp }, (_, i) => randomFeeds(signature, seed * madeUp + i)),
      isMadeUp: true,
    };
  }
  if (samples === undefined)
    warnings.push(
      'Answers were compared on the calibration data itself; give other samples for a fair comparison.',
    );
  const bind = createFeedBinder(signature);
  const list: TensorMap[] = [];
  for await (const sample of given) {
    list.push(bind(sample));
    if (list.length >= maxSamples) break;
  }
  if (list.length === 0)
    throw new InputError(
      'ERR_INLAY_FEED_MISSING',
      'There are no samples to compare answers on; give at least one.',
    );
  return { list, isMadeUp: false };
}

/** Whether data can be read again from its beginning: a generator cannot. */
function isRepeatable(data: AsyncIterable<TensorMap> | Iterable<TensorMap> | undefined): boolean {
  return data !== undefined && !('next' in data);
}
