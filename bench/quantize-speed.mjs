/** Size and speed of what each technique makes, on the processor and in WebAssembly, with one thread. */
import { parseModel } from 'inlay/onnx';
import { auditModel, checkInvariance } from 'inlay/optimize';
import {
  inRows,
  isQuick,
  openWorkpiece,
  PYTHON_DEFAULTS,
  race,
  row,
  sizeRow,
  speedRow,
  TECHNIQUES,
} from './quantize-race.mjs';
import { convolutions, decodeStep, encoder, mlp, residual } from './zoo.mjs';

const SIZES = { 'int8-row': 0.26, 'int8-dynamic': 0.26, fp16: 0.51 };
const BLOCKS = { 'int4-block32': 0.17, 'int4-block128': 0.14 };
const CALIBRATION = 4;

/** What is raced: techniques by the speed that is asked for, for each number of rows. */
const RACES = [
  {
    open: () => mlp({ width: 1024 }),
    sizes: { ...SIZES, ...BLOCKS },
    speeds: {
      1: { 'int8-dynamic': 3, 'int8-row': undefined, 'int8-static': undefined, fp16: undefined },
      32: { 'int8-dynamic': 4.5, 'int8-row': undefined, 'int8-static': undefined },
    },
  },
  { open: () => convolutions({ channels: 64, size: 56 }), speeds: { 1: { 'int8-static': 3 } } },
  {
    open: () => convolutions({ channels: 128, size: 28 }),
    speeds: { 1: { 'int8-static': 3 } },
    isLong: true,
  },
  {
    open: () => convolutions({ channels: 256, size: 14 }),
    speeds: { 1: { 'int8-static': 3 } },
    isLong: true,
  },
  {
    open: () => residual(),
    sizes: { 'int8-static': 0.26 },
    speeds: { 1: { 'int8-static': 2.7 } },
    python: 2.5,
  },
  {
    open: () => encoder(),
    sizes: SIZES,
    speeds: { 1: { 'int8-dynamic': 2, 'int8-row': 1.6, 'int8-static': undefined } },
    python: undefined,
    isLong: true,
  },
  {
    open: () => mlp({ width: 2048 }),
    speeds: { 1: { 'int4-block32': 7, 'int4-block128': undefined, 'int8-block128': undefined } },
  },
  {
    open: () => decodeStep(),
    sizes: BLOCKS,
    speeds: { 1: { 'int4-block32': undefined, 'int4-block128': undefined, 'int8-dynamic': undefined } },
    isLong: true,
  },
];

const WASM_RACES = [
  {
    open: () => convolutions({ channels: 64, size: 56, layers: 2 }),
    speeds: { 1: { 'int8-static': 1.6, 'int8-conv': undefined } },
  },
  {
    open: () => mlp({ width: 512 }),
    speeds: {
      1: { 'int8-dynamic': undefined },
      32: { 'int8-dynamic': 1.8, 'int8-row': undefined },
    },
  },
  {
    open: () => mlp({ width: 1024, layers: 2 }),
    speeds: { 32: { 'int8-dynamic': 1.8, 'int8-static': undefined } },
    isLong: true,
  },
];

const ALL = {
  ...TECHNIQUES,
  'int8-conv': { kind: 'dynamic', mode: 'tensor', weights: 'uint8', convolutions: true },
};

/** Races on the processor; counts weights that are dequantized at each run over all that was made. */
export async function speeds(node) {
  const rows = [];
  const left = { models: 0, weights: 0 };
  for (const { open, sizes = {}, speeds: asked, ...more } of pick(RACES)) {
    const { name, model, feeds } = open();
    const workpiece = await openWorkpiece(model, node, samplesOf(feeds));
    const made = { float: model };
    for (const technique of namesOf(sizes, asked)) {
      made[technique] = await workpiece.make(ALL[technique]);
      left.models += 1;
      left.weights += await unfusedWeights(made[technique], node);
    }
    for (const [technique, target] of Object.entries(sizes))
      rows.push(sizeRow(`${name}, ${technique}`, made[technique], model, target));
    if ('python' in more) made.python = await workpiece.make(PYTHON_DEFAULTS.static, { method: 'minmax' });
    rows.push(...(await raceAll(node, { name, made, feeds, asked, python: more.python })));
  }
  rows.push(
    row(`${left.models} quantized models, audited`, 'weights dequantized at each run', left.weights, {
      target: 0,
    }),
  );
  return rows;
}

/** Races in WebAssembly, under Node. */
export async function wasmSpeeds(node, wasm) {
  const rows = [];
  for (const { open, speeds: asked } of pick(WASM_RACES)) {
    const { name, model, feeds } = open();
    const workpiece = await openWorkpiece(model, node, samplesOf(feeds));
    const made = { float: model };
    for (const technique of namesOf({}, asked)) made[technique] = await workpiece.make(ALL[technique]);
    rows.push(...(await raceAll(wasm, { name: `WebAssembly, ${name}`, made, feeds, asked })));
  }
  return rows;
}

/** Whether a row gets bit for bit the same beside whatever other row, and alone. */
export async function invariance(node, wasm) {
  const fixtures = [
    ...[256, 384, 512, 1024].map((width) => mlp({ width, layers: 2 })),
    encoder({ layers: isQuick ? 1 : 2 }),
  ];
  const rows = [];
  for (const [place, runtime] of Object.entries({ native: node, WebAssembly: wasm })) {
    for (const technique of ['int8-row', 'int8-dynamic']) {
      const found = [];
      for (const { model, feeds } of fixtures) {
        const made = await (await openWorkpiece(model, node, [])).make(TECHNIQUES[technique]);
        found.push(await checkInvariance(made, runtime, [feeds(1, 1), feeds(1, 2)]));
      }
      const isAsked = technique === 'int8-row';
      const share = (of) => found.filter(of).length / found.length;
      const more = isAsked ? { target: 1, better: 'higher' } : {};
      const name = `${technique}, ${place}, ${fixtures.length} models`;
      rows.push(
        row(
          name,
          'share: a row is bit-equal beside a row 10 times as large',
          share(({ isInvariant }) => isInvariant),
          more,
        ),
        row(
          name,
          'share: a row alone is bit-equal to it in a batch',
          share(({ isSameAlone }) => isSameAlone),
          more,
        ),
        row(
          name,
          'least SQNR beside a row 10 times as large',
          Math.min(...found.map(({ sqnrDb }) => Math.min(sqnrDb, 200))),
          { unit: 'dB' },
        ),
      );
    }
  }
  return rows;
}

async function raceAll(runtime, { name, made, feeds, asked, python }) {
  const rows = [];
  for (const [batch, targets] of Object.entries(asked)) {
    const names = ['float', ...Object.keys(targets), ...(made.python ? ['python'] : [])];
    const models = Object.fromEntries(names.map((one) => [one, made[one]]));
    const times = await race(runtime, models, feeds(Number(batch)));
    const at = `${name}, ${inRows(batch)}`;
    for (const [technique, target] of Object.entries(targets))
      rows.push(speedRow(`${at}, ${technique}`, times[technique], times.float, target));
    if (made.python === undefined) continue;
    rows.push(
      speedRow(`${at}, Python's static default (our options)`, times.python, times.float),
      speedRow(
        `${at}, int8-static beside Python's static default`,
        times['int8-static'],
        times.python,
        python,
      ),
    );
  }
  return rows;
}

async function unfusedWeights(model, runtime) {
  const { findings } = await auditModel(parseModel(model), runtime);
  return findings.filter(({ kind }) => kind === 'weight-dequantize').length;
}

const pick = (races) => races.filter(({ isLong = false }) => !(isQuick && isLong));
const samplesOf = (feeds) => Array.from({ length: CALIBRATION }, (_, i) => feeds(1, 10 + i));
const namesOf = (sizes, asked) => [
  ...new Set([...Object.keys(sizes), ...Object.values(asked).flatMap((targets) => Object.keys(targets))]),
];
