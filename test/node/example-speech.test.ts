import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as fc from 'fast-check';
import { createInlay, Tensor, type Feeds, type Model, type Signature, type TensorMap } from 'inlay';
import * as ort from 'onnxruntime-node';
import { afterAll, describe, expect, it } from 'vitest';
import { WaveFile } from 'wavefile';

interface Segment {
  readonly start: number;
  readonly end: number;
}
interface Vad {
  process(samples: Float32Array): Promise<number[]>;
  finish(): Promise<number[]>;
}
interface Example {
  readonly findSegments: (
    probabilities: readonly number[],
    options: { windowMs: number; durationMs: number; threshold?: number; paddingMs?: number },
  ) => Segment[];
  readonly createVad: (model: Pick<Model, 'run' | 'signature'>) => Vad;
  readonly decodeWav: (bytes: Uint8Array, sampleRate: number) => Float32Array | undefined;
}

const example = new URL('../../examples/speech/', import.meta.url);
const { findSegments, createVad, decodeWav } = Object.assign(
  {},
  ...(await Promise.all(
    ['segments.mjs', 'vad.mjs', 'audio.mjs'].map((file) => import(new URL(file, example).href)),
  )),
) as Example;

const data = new URL('../../../shared/data/', import.meta.url);
const models = ['silero-vad.onnx', 'silero-vad-16k.onnx'];
const isHere = [...models, 'speech-16k.wav'].every((file) => existsSync(new URL(file, data)));
if (!isHere) console.warn('Skipped: the speech and its models of ../shared/data are not here.');

const WINDOW_MS = 32;
const find = (
  probabilities: readonly number[],
  changes: { threshold?: number; paddingMs?: number } = {},
): Segment[] =>
  findSegments(probabilities, {
    windowMs: WINDOW_MS,
    durationMs: probabilities.length * WINDOW_MS,
    paddingMs: 0,
    ...changes,
  });
/** Windows of equal probability: `[0.9, 20]` is 20 of them. */
const windows = (...runs: readonly (readonly [probability: number, count: number])[]): number[] =>
  runs.flatMap(([probability, count]) => Array.from({ length: count }, () => probability));
const at = (from: number, to: number): Segment => ({ start: from * WINDOW_MS, end: to * WINDOW_MS });

describe('segments', () => {
  it('begin where the probability reaches the threshold and end where it falls', () => {
    expect(find(windows([0.1, 5], [0.5, 20], [0.1, 5]))).toEqual([at(5, 25)]);
  });

  it('are none without speech, and without windows', () => {
    expect(find(windows([0.49, 50]))).toEqual([]);
    expect(find([])).toEqual([]);
  });

  it('go on while the probability stays within the hysteresis below the threshold', () => {
    expect(find(windows([0.9, 10], [0.36, 30], [0.1, 5]))).toEqual([at(0, 40)]);
    expect(find(windows([0.9, 10], [0.34, 30]))).toEqual([at(0, 10)]);
  });

  it('do not begin within the hysteresis', () => {
    expect(find(windows([0.1, 5], [0.49, 10], [0.9, 10], [0.1, 5]))).toEqual([at(15, 25)]);
  });

  it('end where the probability fell first, even if it rises into the hysteresis in between', () => {
    expect(find(windows([0.9, 10], [0.1, 1], [0.4, 2], [0.1, 5]))).toEqual([at(0, 10)]);
  });

  it('bridge pauses shorter than 100 ms and no longer ones', () => {
    expect(find(windows([0.9, 10], [0.1, 4], [0.9, 10]))).toEqual([at(0, 24)]);
    expect(find(windows([0.9, 10], [0.1, 5], [0.9, 10]))).toEqual([at(0, 10), at(15, 25)]);
  });

  it('are dropped when they last 250 ms or less', () => {
    expect(find(windows([0.9, 7], [0.1, 10]))).toEqual([]);
    expect(find(windows([0.9, 8], [0.1, 10]))).toEqual([at(0, 8)]);
  });

  it('run to the end of the recording when nothing ends them', () => {
    expect(findSegments(windows([0.1, 5], [0.9, 20]), { windowMs: WINDOW_MS, durationMs: 790 })).toEqual([
      { start: 5 * WINDOW_MS - 30, end: 790 },
    ]);
  });

  it('gain padding, but not beyond the recording, and share a gap that is too short for two', () => {
    const probabilities = windows([0.9, 10], [0.1, 5], [0.9, 10], [0.1, 5]);
    expect(find(probabilities, { paddingMs: 30 })).toEqual([
      { start: 0, end: 350 },
      { start: 450, end: 830 },
    ]);
    expect(find(probabilities, { paddingMs: 100 })).toEqual([
      { start: 0, end: 400 },
      { start: 400, end: 900 },
    ]);
  });

  it('follow the threshold that they are given', () => {
    const probabilities = windows([0.1, 5], [0.7, 10], [0.1, 5]);
    expect(find(probabilities, { threshold: 0.7 })).toHaveLength(1);
    expect(find(probabilities, { threshold: 0.71 })).toEqual([]);
  });

  it('lie in the recording, in order and apart, whatever the probabilities', () => {
    const probability = fc.double({ min: 0, max: 1, noNaN: true });
    const runs = fc.array(fc.tuple(probability, fc.integer({ min: 1, max: 20 })), { maxLength: 30 });
    fc.assert(
      fc.property(runs, probability, fc.integer({ min: 0, max: 300 }), (parts, threshold, paddingMs) => {
        const probabilities = windows(...parts);
        const segments = find(probabilities, { threshold, paddingMs });
        let last = 0;
        for (const { start, end } of segments) {
          expect(start).toBeGreaterThanOrEqual(last);
          expect(end).toBeGreaterThan(start);
          last = end;
        }
        expect(last).toBeLessThanOrEqual(probabilities.length * WINDOW_MS);
      }),
    );
  });
});

const signature: Signature = {
  inputs: [
    { name: 'input', dtype: 'float32', shape: [null, null] },
    { name: 'state', dtype: 'float32', shape: [2, null, 128] },
    { name: 'sr', dtype: 'int64', shape: [] },
  ],
  outputs: [
    { name: 'output', dtype: 'float32', shape: [null, 1] },
    { name: 'stateN', dtype: 'float32', shape: [null, null, null] },
  ],
};

/** Keeps what it is fed; each state counts the runs, and so does the probability. */
function createFake(): {
  readonly model: Pick<Model, 'run' | 'signature'>;
  readonly frames: number[][];
  readonly states: number[];
} {
  const frames: number[][] = [];
  const states: number[] = [];
  const run = (feeds: Feeds): Promise<TensorMap> => {
    const { input, state } = feeds as Record<string, Tensor<'float32'>>;
    frames.push([...(input as Tensor<'float32'>).data]);
    states.push((state as Tensor<'float32'>).data[0] as number);
    const stateN = new Tensor('float32', [2, 1, 128], new Float32Array(256).fill(frames.length));
    const output = new Tensor('float32', [1, 1], new Float32Array([frames.length / 1024]));
    return Promise.resolve({ output, stateN });
  };
  return { model: { run, signature }, frames, states };
}

describe('the stream', () => {
  const count = (length: number): Float32Array => Float32Array.from({ length }, (_, index) => index + 1);

  it('feeds each window behind the end of the one before it, with the state of the last answer', async () => {
    const { model, frames, states } = createFake();
    expect(await createVad(model).process(count(3 * 512))).toEqual([1, 2, 3].map((run) => run / 1024));
    const [first, second] = [frames[0] as number[], frames[1] as number[]];
    expect(first).toEqual([...new Float32Array(64), ...count(512)]);
    expect(second).toEqual([...count(1024).subarray(512 - 64)]);
    expect(states).toEqual([0, 1, 2]);
  });

  it('hears the same however the samples are cut', async () => {
    const samples = count(2000);
    const whole = createFake();
    const vad = createVad(whole.model);
    const expected = [...(await vad.process(samples)), ...(await vad.finish())];
    await fc.assert(
      fc.asyncProperty(fc.array(fc.integer({ min: 0, max: 1100 }), { maxLength: 12 }), async (lengths) => {
        const cut = createFake();
        const stream = createVad(cut.model);
        const heard: number[] = [];
        let from = 0;
        for (const length of [...lengths, samples.length]) {
          heard.push(...(await stream.process(samples.subarray(from, from + length))));
          from += length;
        }
        heard.push(...(await stream.finish()));
        expect(heard).toEqual(expected);
        expect(cut.frames).toEqual(whole.frames);
      }),
      { numRuns: 50 },
    );
  });

  it('hears the same when calls do not wait for each other', async () => {
    const { model, frames, states } = createFake();
    const vad = createVad(model);
    const samples = count(1536);
    const heard = await Promise.all(
      [0, 700, 1400].map((from) => vad.process(samples.subarray(from, from + 700))),
    );
    expect(heard.flat()).toEqual([1, 2, 3].map((run) => run / 1024));
    expect(states).toEqual([0, 1, 2]);
    expect(frames.flatMap((frame) => frame.slice(64))).toEqual([...samples]);
  });

  it('fills the last window up with silence, if there is one', async () => {
    const { model, frames } = createFake();
    const vad = createVad(model);
    await vad.process(count(512 + 10));
    expect(await vad.finish()).toHaveLength(1);
    expect(frames[1]?.slice(64)).toEqual([...count(522).subarray(512), ...new Float32Array(502)]);
    expect(await vad.finish()).toEqual([]);
  });
});

describe.skipIf(!isHere)('the recording', () => {
  const wav = isHere ? readFileSync(new URL('speech-16k.wav', data)) : Buffer.alloc(0);
  // 16-bit samples behind a header of 44 bytes, read without the example's decoder.
  const samples = Float32Array.from(
    { length: Math.max(0, (wav.length - 44) / 2) },
    (_, index) => wav.readInt16LE(44 + 2 * index) / 32_768,
  );

  it('is decoded to its samples', () => {
    expect(Buffer.compare(bytesOf(decodeWav(wav, 16_000)), bytesOf(samples))).toBe(0);
  });

  it.each(models)('runs through %s bit for bit as onnxruntime runs it, and holds speech', async (name) => {
    const path = fileURLToPath(new URL(name, data));
    const outputs: TensorMap[] = [];
    const inlay = createInlay({ device: 'cpu', intraOpThreads: 1 });
    let probabilities: number[];
    try {
      const model = await inlay.load(path);
      const vad = createVad({
        signature: model.signature,
        run: async (feeds, options) => {
          const answer = await model.run(feeds, options);
          outputs.push(answer);
          return answer;
        },
      });
      probabilities = [...(await vad.process(samples)), ...(await vad.finish())];
    } finally {
      await inlay.close();
    }
    expect(outputs).toHaveLength(1875);

    const differing: string[] = [];
    let run = 0;
    for await (const expected of runRaw(path, samples)) {
      const got = outputs[run] as TensorMap;
      expect(Object.keys(got).sort()).toEqual(Object.keys(expected).sort());
      for (const [output, tensor] of Object.entries(expected)) {
        if (!isSame(got[output] as Tensor, tensor)) differing.push(`${output} of run ${run}`);
      }
      expect(probabilities[run]).toBe(expected['output']?.data[0]);
      run += 1;
    }
    expect(run).toBe(1875);
    expect(differing).toEqual([]);

    const segments = findSegments(probabilities, { windowMs: WINDOW_MS, durationMs: 60_000 });
    const speechMs = segments.reduce((sum, { start, end }) => sum + end - start, 0);
    expect(segments).toHaveLength(19);
    expect(speechMs / 60_000).toBeGreaterThan(0.75);
    expect(speechMs / 60_000).toBeLessThan(0.85);
    let last = 0;
    for (const { start, end } of segments) {
      expect(start).toBeGreaterThanOrEqual(last);
      expect(end - start).toBeGreaterThan(250);
      last = end;
    }
    expect(last).toBeLessThan(60_000);
  });
});

/** What onnxruntime itself gives, window by window, with frames and state made here. */
async function* runRaw(
  path: string,
  samples: Float32Array,
): AsyncGenerator<Readonly<Record<string, ort.Tensor>>> {
  const session = await ort.InferenceSession.create(path, { intraOpNumThreads: 1 });
  const sr = new ort.Tensor('int64', [16_000n], []);
  let state: ort.Tensor = new ort.Tensor('float32', new Float32Array(256), [2, 1, 128]);
  for (let from = 0; from < samples.length; from += 512) {
    const frame = new Float32Array(576);
    const context = samples.subarray(Math.max(0, from - 64), from);
    frame.set(context, 64 - context.length);
    frame.set(samples.subarray(from, from + 512), 64);
    const outputs = await session.run({ input: new ort.Tensor('float32', frame, [1, 576]), state, sr });
    yield outputs;
    state = outputs['stateN'] as ort.Tensor;
  }
  await session.release();
}

function isSame(got: Tensor, expected: ort.Tensor): boolean {
  return (
    got.dtype === expected.type &&
    got.shape.join() === expected.dims.join() &&
    Buffer.compare(bytesOf(got.data), bytesOf(expected.data)) === 0
  );
}

function bytesOf(values: unknown): Uint8Array {
  const { buffer, byteOffset, byteLength } = values as Float32Array;
  return new Uint8Array(buffer, byteOffset, byteLength);
}

describe('decoding', () => {
  it.each([
    { bits: 8, code: 1 },
    { bits: 16, code: 1 },
    { bits: 24, code: 1 },
    { bits: 32, code: 1 },
    { bits: 32, code: 3 },
    { bits: 64, code: 3 },
  ])('scales samples of $bits bits and format $code to [-1, 1]', ({ bits, code }) => {
    const wav = writeWav({ bits, code, sampleRate: 16_000, channels: [[0, 0.5, -0.5, -1]] });
    expect([...(decodeWav(wav, 16_000) as Float32Array)]).toEqual([0, 0.5, -0.5, -1]);
  });

  const tone = Array.from({ length: 1000 }, (_, i) => Math.sin((2 * Math.PI * 440 * i) / 8000) / 2);
  const compressed = (how: 'toALaw' | 'toMuLaw' | 'toIMAADPCM'): Uint8Array => {
    const wav = new WaveFile(writeWav({ bits: 16, code: 1, sampleRate: 8000, channels: [tone] }));
    wav[how]();
    return wav.toBuffer();
  };

  it.each(['toALaw', 'toMuLaw'] as const)('undoes the compression of %s', (how) => {
    const heard = decodeWav(compressed(how), 8000) as Float32Array;
    expect(heard).toHaveLength(tone.length);
    const errors = tone.map((sample, i) => Math.abs(sample - (heard[i] as number)));
    expect(Math.max(...errors)).toBeLessThan(0.02);
  });

  it('gives nothing for ADPCM, rather than times that are wrong', () => {
    expect(decodeWav(compressed('toIMAADPCM'), 8000)).toBeUndefined();
  });

  it('mixes channels to their mean', () => {
    const channels = [
      [0.5, -0.25],
      [0, -0.75],
    ];
    const wav = writeWav({ bits: 16, code: 1, sampleRate: 16_000, channels });
    expect([...(decodeWav(wav, 16_000) as Float32Array)]).toEqual([0.25, -0.5]);
  });

  it.each([8_000, 44_100, 48_000])('brings %i samples per second to 16,000', (sampleRate) => {
    const second = Array.from(
      { length: sampleRate },
      (_, i) => Math.sin((2 * Math.PI * 440 * i) / sampleRate) / 2,
    );
    const heard = decodeWav(
      writeWav({ bits: 16, code: 1, sampleRate, channels: [second] }),
      16_000,
    ) as Float32Array;
    expect(heard).toHaveLength(16_000);
    let crossings = 0;
    heard.forEach((sample, i) => (crossings += Number(i > 0 && sample >= 0 && (heard[i - 1] as number) < 0)));
    expect(Math.abs(crossings - 440)).toBeLessThanOrEqual(1);
    expect(Math.sqrt(heard.reduce((sum, x) => sum + x * x, 0) / heard.length)).toBeCloseTo(
      Math.SQRT1_2 / 2,
      2,
    );
  });

  it('gives nothing for bytes that are no WAV file', () => {
    const wav = writeWav({ bits: 16, code: 1, sampleRate: 16_000, channels: [[0, 1]] });
    const still = writeWav({ bits: 16, code: 1, sampleRate: 0, channels: [[0, 1]] });
    const texts = ['', 'hello', 'RIFF....WAVEfmt '].map((text) => Buffer.from(text));
    for (const bytes of [...texts, wav.subarray(0, 30), still])
      expect(decodeWav(bytes, 16_000)).toBeUndefined();
  });
});

interface WavParts {
  readonly bits: number;
  /** 1 for integers, 3 for floats. */
  readonly code: number;
  readonly sampleRate: number;
  readonly channels: readonly (readonly number[])[];
}

/** Writes a WAV file with the canonical header of 44 bytes. */
function writeWav({ bits, code, sampleRate, channels }: WavParts): Buffer {
  const width = bits / 8;
  const frames = channels[0]?.length ?? 0;
  const bytes = Buffer.alloc(44 + frames * channels.length * width);
  bytes.write('RIFF', 0);
  bytes.writeUInt32LE(bytes.length - 8, 4);
  bytes.write('WAVEfmt ', 8);
  bytes.writeUInt32LE(16, 16);
  bytes.writeUInt16LE(code, 20);
  bytes.writeUInt16LE(channels.length, 22);
  bytes.writeUInt32LE(sampleRate, 24);
  bytes.writeUInt32LE(sampleRate * channels.length * width, 28);
  bytes.writeUInt16LE(channels.length * width, 32);
  bytes.writeUInt16LE(bits, 34);
  bytes.write('data', 36);
  bytes.writeUInt32LE(bytes.length - 44, 40);
  let offset = 44;
  for (let frame = 0; frame < frames; frame += 1) {
    for (const channel of channels) {
      const sample = channel[frame] as number;
      const integer = Math.min(Math.round(sample * 2 ** (bits - 1)), 2 ** (bits - 1) - 1);
      if (code === 3 && bits === 32) bytes.writeFloatLE(sample, offset);
      else if (code === 3) bytes.writeDoubleLE(sample, offset);
      else if (bits === 8) bytes.writeUInt8(integer + 128, offset);
      else bytes.writeIntLE(integer, offset, width);
      offset += width;
    }
  }
  return bytes;
}

describe('the program', () => {
  const folder = mkdtempSync(join(tmpdir(), 'inlay-speech-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  const text = join(folder, 'text.wav');
  const empty = join(folder, 'empty.wav');
  const tone = join(folder, 'tone.wav');
  writeFileSync(text, 'This is no recording.');
  writeFileSync(empty, writeWav({ bits: 16, code: 1, sampleRate: 16_000, channels: [[]] }));
  writeFileSync(tone, writeWav({ bits: 16, code: 1, sampleRate: 16_000, channels: [[0, 0.5]] }));

  const run = (...args: string[]): { status: number | null; stdout: string; stderr: string } =>
    spawnSync(process.execPath, [fileURLToPath(new URL('main.mjs', example)), ...args], { encoding: 'utf8' });

  it.each([
    { it: 'no arguments', args: [], status: 2, says: /^Usage: .*give a recording and a model/ },
    { it: 'a recording alone', args: [tone], status: 2, says: /^Usage: / },
    { it: 'an unknown option', args: ['--loud', tone, text], status: 2, says: /^Usage: .*--loud/ },
    {
      it: 'a threshold that is no probability',
      args: [tone, text, '--threshold', 'high'],
      status: 2,
      says: /"high" is no number between 0 and 1/,
    },
    {
      it: 'no such recording',
      args: [join(folder, 'none.wav'), text],
      status: 1,
      says: /none\.wav cannot be read/,
    },
    { it: 'a folder as recording', args: [folder, text], status: 1, says: /cannot be read \(EISDIR\)/ },
    { it: 'text as recording', args: [text, text], status: 1, says: /is not a WAV file/ },
    { it: 'an empty recording', args: [empty, text], status: 1, says: /is empty/ },
    { it: 'no such model', args: [tone, join(folder, 'none.onnx')], status: 1, says: /none\.onnx/ },
    { it: 'text as model', args: [tone, text], status: 1, says: /text\.wav/ },
  ])('says in one line what is wrong with $it', ({ args, status, says }) => {
    const result = run(...args);
    expect(result.stderr).toMatch(says);
    expect(result.stderr).toMatch(/^[^\n]+\.\n$/);
    expect(result.stdout).toBe('');
    expect(result.status).toBe(status);
  });

  it.skipIf(!isHere)('prints the segments of the recording as a table, and as JSON', () => {
    const args = ['speech-16k.wav', 'silero-vad-16k.onnx'].map((file) => fileURLToPath(new URL(file, data)));
    const table = run(...args);
    expect(table).toMatchObject({ status: 0, stderr: '' });
    expect(table.stdout).toMatch(/│ +19 │ 0:57\.\d\d – 0:59\.\d\d │/);
    expect(table.stdout).toMatch(/19 segments, 48\.\d\d s of speech in 60\.00 s \(81 %\)/);

    const json = run(...args, '--json', '--threshold', '0.9');
    const report = JSON.parse(json.stdout) as { segments: Segment[]; durationMs: number; windows: number };
    expect(report).toMatchObject({ durationMs: 60_000, windows: 1875 });
    expect(report.segments.length).toBeGreaterThan(5);
  });
});
