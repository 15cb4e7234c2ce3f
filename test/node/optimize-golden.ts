/** The models of the Python reference, small models of our own, and what they answer. */

import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { InferenceSession, Tensor as OrtTensor } from 'onnxruntime-node';
import type { ModelProto } from '../../src/onnx/messages.ts';
import { encodeModel, parseModel } from '../../src/onnx/model.ts';
import { fromTensorProto } from '../../src/onnx/tensors.ts';

const folder = fileURLToPath(new URL('../../../shared/data/quantize/', import.meta.url));

/** Whether the golden files are there. */
export const hasGolden: boolean = existsSync(`${folder}index.json`);
if (!hasGolden) console.log('Skipped: the quantized models in ../shared/data/quantize are not there.');

/** A model of the reference by its name. */
export function goldenModel(name: string): ModelProto {
  return parseModel(readFileSync(`${folder}${name}.onnx`));
}

/** Signal-to-noise ratio of a quantized model of the reference, dB. */
export function goldenSqnr(name: string): number {
  const { models } = JSON.parse(readFileSync(`${folder}index.json`, 'utf8')) as {
    models: Record<string, { sqnr_db: number }>;
  };
  return models[name]?.sqnr_db ?? Number.NaN;
}

/** The inputs that the reference was evaluated with. */
export function evaluationInputs(family: 'mlp' | 'cnn'): Feeds {
  const bytes = readFileSync(`${folder}${family}.evaluation.f32`);
  const shape = family === 'mlp' ? [64, 256] : [64, 3, 16, 16];
  const [name = ''] = goldenModel(family).graph.input.map((input) => input.name ?? '');
  return { [name]: floats(shape, new Float32Array(new Uint8Array(bytes).buffer)) };
}

/** Inputs by name. */
export type Feeds = Readonly<Record<string, OrtTensor>>;

/** Opens a model in onnxruntime as apps do, runs it with feeds one after the other. @returns The first outputs. */
export async function runAll(model: ModelProto, runs: readonly Feeds[]): Promise<Float32Array[]> {
  const session = await InferenceSession.create(encodeModel(model), {
    intraOpNumThreads: 1,
    logSeverityLevel: 3,
  });
  try {
    const outputs: Float32Array[] = [];
    for (const feeds of runs) {
      const results = await session.run(feeds);
      outputs.push(results[session.outputNames[0] ?? '']?.data as Float32Array);
    }
    return outputs;
  } finally {
    await session.release();
  }
}

/** Runs a model once. @returns The first output. */
export async function runOnce(model: ModelProto, feeds: Feeds): Promise<Float32Array> {
  const [output] = await runAll(model, [feeds]);
  return output as Float32Array;
}

/** Numbers that look normally distributed, the same for the same seed. */
export function gauss(length: number, seed = 1): Float32Array<ArrayBuffer> {
  let state = seed;
  const uniform = (): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32 - 0.5;
  };
  return Float32Array.from({ length }, () => uniform() + uniform() + uniform() + uniform());
}

/** A float32 input of that shape. */
export function floats(shape: readonly number[], data?: Float32Array): OrtTensor {
  return new OrtTensor(
    'float32',
    data ??
      gauss(
        shape.reduce((size, length) => size * length, 1),
        99,
      ),
    shape,
  );
}

/** Operators of the graph, in order. */
export function opsOf({ graph }: ModelProto): string[] {
  return graph.node.map(({ opType = '' }) => opType);
}

/** 20 · log10 of the ratio of norms, as `qdq_loss_debug.py` reckons. */
export function sqnrDb(expected: Float32Array, actual: Float32Array): number {
  let signal = 0;
  let noise = 0;
  expected.forEach((value, at) => {
    signal += value ** 2;
    noise += (value - (actual[at] as number)) ** 2;
  });
  return 10 * Math.log10(signal / noise);
}

/** The constants of a model as text, dtype and bytes: what can be compared whatever they are called. */
export function constantsOf(model: ModelProto): string[] {
  return model.graph.initializer.map((proto) => {
    const { dtype, shape, data } = fromTensorProto(proto);
    const { buffer, byteOffset, byteLength } = data as Uint8Array;
    return `${dtype} [${shape.join(', ')}] ${Buffer.from(buffer, byteOffset, byteLength).toString('base64')}`;
  });
}
