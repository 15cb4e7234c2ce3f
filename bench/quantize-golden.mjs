/** What the techniques give beside what `onnxruntime.quantization` gives of the same models. */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { Tensor } from 'inlay';
import { encodeModel, fromTensorProto, parseModel, toTensorProto } from 'inlay/onnx';
import { applyTechnique, calibrate, inferTypes } from 'inlay/optimize';
import { DATA, openWorkpiece, PYTHON_DEFAULTS, readData, row, sqnrOf, TECHNIQUES } from './quantize-race.mjs';
import { encoder } from './zoo.mjs';

const dynamic = { kind: 'dynamic', mode: 'tensor', perChannel: false };
const CASES = {
  'mlp.dynamic.s8': dynamic,
  'mlp.dynamic.u8': { ...dynamic, weights: 'uint8' },
  'mlp.dynamic.s8.channel': { ...dynamic, perChannel: true },
  'mlp.dynamic.s8.reduced': { ...dynamic, reduceRange: true },
  'mlp.static.u8s8.channel.minmax': { kind: 'static' },
  'mlp.static.u8s8.channel.percentile': { kind: 'static' },
  'mlp.float16': { kind: 'float16' },
  'mlp.q4.block32.sym': { kind: 'nbits', bits: 4, isSymmetric: true },
  'mlp.q4.block32.asym': { kind: 'nbits', bits: 4 },
  'mlp.q8.block128.asym': { kind: 'nbits', bits: 8 },
  'cnn.dynamic.u8': { ...dynamic, weights: 'uint8', convolutions: true },
  'cnn.static.u8s8.channel.minmax': { kind: 'static' },
  'cnn.static.u8s8.channel.percentile': { kind: 'static' },
  'cnn.float16': { kind: 'float16' },
};
/** Samples that the encoder is calibrated on. */
const CALIBRATION = 4;

/** Constants that are equal bit for bit, and the signal-to-noise ratio beside that of the reference. */
export async function parity(runtime) {
  if (!existsSync(new URL('quantize/index.json', DATA))) {
    console.error('Skipped: the models of the reference are not in ../shared/data/quantize.');
    return [];
  }
  const index = JSON.parse(Buffer.from(readData('quantize/index.json')).toString());
  const inputOf = (family, part) => {
    const data = new Float32Array(readData(`quantize/${family}.${part}.f32`).buffer);
    return { x: new Tensor('float32', index.inputs[family][part], data) };
  };
  const rows = [];
  for (const [name, technique] of Object.entries(CASES)) {
    const [family] = name.split('.');
    const bytes = readData(`quantize/${family}.onnx`);
    const float = parseModel(bytes);
    const types = await inferTypes(float, runtime);
    const samples = [inputOf(family, 'calibration')];
    const method = name.split('.').at(-1);
    const ranges =
      technique.kind === 'static'
        ? (await calibrate(float, runtime, samples, { method, types })).ranges
        : undefined;
    const { model } = applyTechnique(float, technique, { types, ranges });
    const ours = new Set(model.graph.initializer.map(hashOf));
    const theirs = parseModel(readData(`quantize/${name}.onnx`)).graph.initializer.filter(
      (constant) => !isZeroPerChannel(constant, technique),
    );
    const equal = theirs.filter((constant) => ours.has(hashOf(constant))).length;
    const evaluation = [inputOf(family, 'evaluation')];
    const db = await sqnrOf(runtime, bytes, encodeModel(model), evaluation);
    const expected = index.models[name].sqnr_db;
    rows.push(
      row(`Python's ${name}`, 'constants equal bit for bit', equal, {
        baseline: theirs.length,
        targetIs: 'ratio',
        target: 1,
        better: 'higher',
      }),
      row(`Python's ${name}`, 'SQNR', db, {
        baseline: expected,
        unit: 'dB',
        target: Number((expected - 0.2).toFixed(2)),
        better: 'higher',
      }),
    );
  }
  return rows;
}

/** Our defaults beside those of Python, on the encoder. */
export async function defaults(runtime) {
  const { name, model, feeds } = encoder();
  const samples = Array.from({ length: CALIBRATION }, (_, i) => feeds(1, 10 + i));
  const evaluation = [feeds(2, 1)];
  const sqnr = async (bytes, technique, options) => {
    const workpiece = await openWorkpiece(bytes, runtime, samples);
    return sqnrOf(runtime, model, await workpiece.make(technique, options), evaluation);
  };
  const own = await sqnr(model, TECHNIQUES['int8-row']);
  const rounded = encodeModel(roundTable(parseModel(model), 'embedding'));
  const rows = [];
  for (const [what, technique] of Object.entries(PYTHON_DEFAULTS)) {
    const theirs = await sqnr(rounded, { ...technique, embeddings: false }, { method: 'minmax' });
    const more = { unit: 'dB', target: Number((theirs + 2).toFixed(2)), better: 'higher' };
    rows.push(
      row(`${name}, default beside Python's ${what} one (our options)`, 'SQNR', own, {
        baseline: theirs,
        ...more,
      }),
    );
  }
  return rows;
}

/** Python has one scale for a whole table of embeddings; ours has one for each row, and is to leave the rounded table. */
function roundTable(model, name) {
  const initializer = model.graph.initializer.map((proto) => {
    if (proto.name !== name) return proto;
    const table = fromTensorProto(proto);
    const largest = table.data.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    const scale = largest / 127;
    const data = table.data.map((value) => Math.round(value / scale) * scale);
    return toTensorProto(name, new Tensor(table.dtype, table.shape, data));
  });
  return { ...model, graph: { ...model.graph, initializer } };
}

function hashOf(proto) {
  const { dtype, shape, data } = fromTensorProto(proto);
  const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  return createHash('sha256').update(`${dtype} ${shape.join()} `).update(bytes).digest('hex');
}

/** The reference has a zero for each channel where we have one for all, which kernels want for weights of three axes. */
function isZeroPerChannel({ name, dims }, { kind, perChannel }) {
  return kind === 'dynamic' && perChannel && name.endsWith('_zero_point') && dims.length === 1;
}
