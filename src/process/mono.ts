import { checkInteger } from './arguments.ts';

/**
 * Mixes channels to one: their mean, sample by sample.
 * @param samples one array per channel, as `AudioBuffer.getChannelData` gives them; or one array with the channels
 * interleaved, as in a WAV file.
 * @param channelCount channels that one array holds. Default 1.
 * @returns as many samples as each channel has, in memory of their own. No channels give none.
 * @throws `RangeError` if channels differ in length, or interleaved samples do not divide into `channelCount`.
 * @example
 * import { mixToMono } from 'inlay/process';
 * const mono = mixToMono(new Float32Array([0.5, 0, -0.25, -0.75]), 2); // 0.25, -0.5
 */
export function mixToMono(
  samples: Float32Array | Float64Array | readonly ArrayLike<number>[],
  channelCount = 1,
): Float32Array<ArrayBuffer> {
  checkInteger('channelCount', channelCount);
  if (samples instanceof Float32Array || samples instanceof Float64Array) {
    const length = samples.length / channelCount;
    if (!Number.isInteger(length)) {
      throw new RangeError(`${samples.length} samples do not divide into ${channelCount} channels.`);
    }
    return mean(length, channelCount, (channel, index) => samples[index * channelCount + channel] as number);
  }
  const length = samples[0]?.length ?? 0;
  const odd = samples.find((channel) => channel.length !== length);
  if (odd !== undefined) {
    throw new RangeError(`Channels must be of one length, got ${length} and ${odd.length} samples.`);
  }
  return mean(length, samples.length, (channel, index) => samples[channel]?.[index] as number);
}

function mean(
  length: number,
  channels: number,
  at: (channel: number, index: number) => number,
): Float32Array<ArrayBuffer> {
  const mixed = new Float32Array(length);
  for (let index = 0; index < length; index += 1) {
    let sum = 0;
    for (let channel = 0; channel < channels; channel += 1) sum += at(channel, index);
    mixed[index] = sum / channels;
  }
  return mixed;
}
