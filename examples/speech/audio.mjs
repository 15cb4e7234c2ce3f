import { mixToMono, resampleAudio } from 'inlay/process';
import wavefile from 'wavefile';

/**
 * Decodes a WAV file of any sample rate and number of channels: integers, floats, A-law or µ-law.
 * @param {Uint8Array} bytes
 * @param {number} sampleRate Samples per second that the result has.
 * @returns {Float32Array | undefined} One channel, in [-1, 1]; `undefined` if the bytes are none of these.
 */
export function decodeWav(bytes, sampleRate) {
  const wav = parseWav(bytes);
  if (wav === undefined) return undefined;
  const samples = wav.getSamples(false, Float64Array);
  const channels = wav.fmt.numChannels === 1 ? [samples] : samples;
  const scale = toScale(wav.bitDepth);
  const mono = mixToMono(channels.map((channel) => channel.map(scale)));
  return resampleAudio(mono, { from: wav.fmt.sampleRate, to: sampleRate });
}

function parseWav(bytes) {
  try {
    const wav = new wavefile.WaveFile(bytes);
    if (wav.bitDepth === '8a') wav.fromALaw();
    if (wav.bitDepth === '8m') wav.fromMuLaw();
    // The library's ADPCM decoder gives more samples than there are, which would shift every time.
    return wav.bitDepth === '4' || wav.fmt.sampleRate === 0 ? undefined : wav;
  } catch {
    return undefined;
  }
}

/** What turns a stored sample into one in [-1, 1]: integers are signed, except those of 8 bits. */
function toScale(bitDepth) {
  if (bitDepth === '32f' || bitDepth === '64') return (sample) => sample;
  if (bitDepth === '8') return (sample) => (sample - 128) / 128;
  const full = 2 ** (Number(bitDepth) - 1);
  return (sample) => sample / full;
}
