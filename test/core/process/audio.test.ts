import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createTransform } from '../../../src/process/fft.ts';
import {
  frameAudio,
  hannWindow,
  melSpectrogram,
  mixToMono,
  resampleAudio,
} from '../../../src/process/index.ts';

const tone = (hertz: number, sampleRate: number, length: number): Float32Array =>
  Float32Array.from({ length }, (_, index) => Math.sin((2 * Math.PI * hertz * index) / sampleRate));
const count = (length: number): Float32Array => Float32Array.from({ length }, (_, index) => index + 1);

describe('frames', () => {
  it('are views that begin one hop apart', () => {
    const samples = count(10);
    const frames = frameAudio(samples, { frameLength: 4, hopLength: 3 });
    expect(frames.map((frame) => [...frame])).toEqual([
      [1, 2, 3, 4],
      [4, 5, 6, 7],
      [7, 8, 9, 10],
    ]);
    for (const frame of frames) expect(frame.buffer).toBe(samples.buffer);
  });

  it('leave an incomplete one out, or fill it up with zeros', () => {
    const options = { frameLength: 4 };
    expect(frameAudio(count(6), options)).toHaveLength(1);
    expect([...(frameAudio(count(6), { ...options, pad: 'end' })[1] as Float32Array)]).toEqual([5, 6, 0, 0]);
    expect(frameAudio(count(8), { ...options, pad: 'end' })).toHaveLength(2);
    expect(frameAudio(count(0), { ...options, pad: 'end' })).toEqual([]);
  });

  it('hold every sample at its place when the end is filled up', () => {
    const small = fc.integer({ min: 1, max: 12 });
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 40 }), small, small, (length, frameLength, hop) => {
        const hopLength = Math.min(hop, frameLength);
        const frames = frameAudio(count(length), { frameLength, hopLength, pad: 'end' });
        const seen = new Set<number>();
        frames.forEach((frame, index) => {
          expect(frame).toHaveLength(frameLength);
          frame.forEach((sample, at) => {
            const place = index * hopLength + at;
            expect(sample).toBe(place < length ? place + 1 : 0);
            if (place < length) seen.add(place);
          });
        });
        expect(seen.size).toBe(length);
      }),
    );
  });

  it('need lengths of at least one sample', () => {
    expect(() => frameAudio(count(3), { frameLength: 0 })).toThrow(/frameLength must be .* got 0/);
    expect(() => frameAudio(count(3), { frameLength: 2, hopLength: 0 })).toThrow(
      /hopLength must be .* got 0/,
    );
    expect(() => frameAudio(count(3), { frameLength: 2, pad: 'both' as 'end' })).toThrow(
      /pad must be .* got "both"/,
    );
  });
});

describe('mixing', () => {
  it('gives the mean of channels, apart or interleaved', () => {
    const channels = [new Float32Array([0.5, -0.25]), new Float32Array([0, -0.75])];
    expect([...mixToMono(channels)]).toEqual([0.25, -0.5]);
    expect([...mixToMono(new Float32Array([0.5, 0, -0.25, -0.75]), 2)]).toEqual([0.25, -0.5]);
    expect([...mixToMono(new Float32Array([1, 2]))]).toEqual([1, 2]);
    expect([...mixToMono([])]).toEqual([]);
  });

  it('refuses channels that do not match', () => {
    expect(() => mixToMono([new Float32Array(2), new Float32Array(3)])).toThrow(/one length, got 2 and 3/);
    expect(() => mixToMono(new Float32Array(3), 2)).toThrow(/3 samples do not divide into 2 channels/);
    expect(() => mixToMono(new Float32Array(3), 0)).toThrow(RangeError);
  });
});

describe('the Hann window', () => {
  it('is periodic for spectra and symmetric on request', () => {
    expect([...hannWindow(4)]).toEqual([0, 0.5, 1, 0.5]);
    const symmetric = [...hannWindow(5, { periodic: false })];
    [0, 0.5, 1, 0.5, 0].forEach((value, index) => expect(symmetric[index]).toBeCloseTo(value, 12));
    expect([...hannWindow(1)]).toEqual([1]);
    expect(() => hannWindow(0)).toThrow(RangeError);
  });

  it('sums to a constant when it overlaps by half', () => {
    const window = hannWindow(64);
    for (let i = 0; i < 32; i += 1)
      expect((window[i] as number) + (window[i + 32] as number)).toBeCloseTo(1, 6);
  });
});

describe('resampling', () => {
  it.each([
    [8_000, 16_000],
    [44_100, 16_000],
    [48_000, 16_000],
    [16_000, 44_100],
    [11_025, 8_000],
    [16_001, 16_000],
    [16_000, 48_000],
  ])('keeps a tone in place from %i to %i Hz', (from, to) => {
    const heard = resampleAudio(tone(1000, from, from / 2), { from, to });
    const expected = tone(1000, to, Math.ceil(((from / 2) * to) / from));
    expect(heard.length).toBeGreaterThanOrEqual(expected.length - 1);
    const margin = Math.ceil((40 * to) / Math.min(from, to));
    let worst = 0;
    for (let i = margin; i < heard.length - margin; i += 1) {
      worst = Math.max(worst, Math.abs((heard[i] as number) - (expected[i] as number)));
    }
    expect(worst).toBeLessThan(2e-4);
  });

  it('takes out what the lower rate cannot hold', () => {
    const heard = resampleAudio(tone(9_000, 48_000, 48_000), { from: 48_000, to: 16_000 });
    expect(Math.max(...heard.subarray(100, 15_900).map(Math.abs))).toBeLessThan(2e-4);
  });

  it('keeps a constant, gives the length of the rates and a copy for equal ones', () => {
    const ones = new Float32Array(4410).fill(1);
    const heard = resampleAudio(ones, { from: 44_100, to: 16_000 });
    expect(heard).toHaveLength(1600);
    heard.subarray(50, 1550).forEach((sample) => expect(sample).toBeCloseTo(1, 6));
    expect(resampleAudio(new Float32Array(3), { from: 2, to: 3 })).toHaveLength(5);
    const same = resampleAudio(ones, { from: 8000, to: 8000 });
    expect([...same]).toEqual([...ones]);
    expect(same.buffer).not.toBe(ones.buffer);
    expect(resampleAudio(new Float32Array(0), { from: 2, to: 3 })).toHaveLength(0);
  });

  it('refuses rates that are no positive integers', () => {
    expect(() => resampleAudio(count(1), { from: 0, to: 1 })).toThrow(/from must be .* got 0/);
    expect(() => resampleAudio(count(1), { from: 1, to: 44.1 })).toThrow(/to must be .* got 44\.1/);
  });
});

describe('the transform', () => {
  it.each([1, 2, 3, 5, 8, 12, 49, 60, 64, 97, 400])('of %i points is that of its definition', (length) => {
    const samples = Float64Array.from({ length }, (_, i) => Math.sin(i * i) + (i % 3));
    const { re, im } = createTransform(length)(samples);
    for (let k = 0; k < length; k += 1) {
      let [cos, sin] = [0, 0];
      samples.forEach((sample, n) => {
        cos += sample * Math.cos((2 * Math.PI * ((k * n) % length)) / length);
        sin -= sample * Math.sin((2 * Math.PI * ((k * n) % length)) / length);
      });
      expect(re[k]).toBeCloseTo(cos, 9);
      expect(im[k]).toBeCloseTo(sin, 9);
    }
  });
});

describe('the mel spectrogram', () => {
  const sampleRate = 16_000;

  it('has the shape of librosa: a frame per hop and one more', () => {
    expect(melSpectrogram(new Float32Array(16_000), { sampleRate }).shape).toEqual([80, 101]);
    expect(melSpectrogram(new Float32Array(16_000), { sampleRate, center: false, bands: 40 }).shape).toEqual([
      40, 98,
    ]);
  });

  it('is loudest in the band of a tone', () => {
    for (const [scale, hertz, band] of [
      ['slaney', 1000, 26],
      ['htk', 1000, 28],
      ['slaney', 4000, 62],
    ] as const) {
      const mel = melSpectrogram(tone(hertz, sampleRate, 4000), { sampleRate, scale, normalize: false });
      const frames = mel.shape[1] as number;
      const middle = Array.from({ length: 80 }, (_, at) => mel.data[at * frames + 10] as number);
      expect(middle.indexOf(Math.max(...middle))).toBe(band);
    }
  });

  it('has the energies that the definitions give', () => {
    const samples = Float32Array.from({ length: 64 }, (_, i) => Math.cos(i * 0.7) + 0.3 * Math.sin(i * 2.1));
    const options = {
      sampleRate: 8000,
      frameLength: 32,
      fftLength: 64,
      hopLength: 16,
      bands: 4,
      center: false,
      scale: 'htk',
    } as const;
    const mel = melSpectrogram(samples, options);
    const toHertz = (value: number): number => 700 * (10 ** (value / 2595) - 1);
    const top = 2595 * Math.log10(1 + 4000 / 700);
    for (let band = 0; band < 4; band += 1) {
      const [left, tip, right] = [band, band + 1, band + 2].map((corner) => toHertz((corner * top) / 5)) as [
        number,
        number,
        number,
      ];
      let energy = 0;
      for (let bin = 0; bin <= 32; bin += 1) {
        let [re, im] = [0, 0];
        for (let n = 0; n < 32; n += 1) {
          const sample = (samples[16 + n] as number) * (0.5 - 0.5 * Math.cos((2 * Math.PI * n) / 32));
          re += sample * Math.cos((2 * Math.PI * bin * n) / 64);
          im += sample * Math.sin((2 * Math.PI * bin * n) / 64);
        }
        const hertz = bin * 125;
        const height = hertz < tip ? (hertz - left) / (tip - left) : (right - hertz) / (right - tip);
        energy += Math.max(height, 0) * (2 / (right - left)) * (re * re + im * im);
      }
      expect(mel.data[band * 3 + 1]).toBeCloseTo(energy, 6);
    }
  });

  it('mirrors the ends of centred frames', () => {
    const samples = count(8);
    const options = { sampleRate: 8000, frameLength: 4, hopLength: 4, bands: 2 };
    const mirrored = new Float32Array([3, 2, ...samples, 7, 6]);
    expect(melSpectrogram(samples, options)).toEqual(melSpectrogram(mirrored, { ...options, center: false }));
    expect(() => melSpectrogram(count(2), options)).toThrow(/more than 2 samples, got 2/);
  });

  it('is of magnitudes for a power of 1, and refuses bands out of range', () => {
    const samples = tone(1000, sampleRate, 400);
    const options = {
      sampleRate,
      bands: 1,
      minFrequency: 980,
      maxFrequency: 1020,
      center: false,
      normalize: false,
    };
    const [power, magnitude] = [2, 1].map(
      (exponent) => melSpectrogram(samples, { ...options, power: exponent }).data[0] as number,
    );
    // The tone has a magnitude of 100: 400 samples by half a window's height by half an amplitude.
    expect(magnitude).toBeCloseTo((power as number) / 100, 3);
    expect(() => melSpectrogram(samples, { sampleRate, maxFrequency: 9000 })).toThrow(
      /maxFrequency must be between 0 and 8000/,
    );
    expect(() => melSpectrogram(samples, { sampleRate, minFrequency: 8000 })).toThrow(
      /minFrequency must be below/,
    );
    expect(() => melSpectrogram(samples, { sampleRate, fftLength: 399 })).toThrow(
      /fftLength must be an integer of at least 400/,
    );
  });
});
