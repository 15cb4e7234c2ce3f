import { roundOntoGrid } from '../build/publish/compact/grid.js';
import { snapToGrid } from '../build/publish/delta/snap.js';
import { segmentsOf } from '../build/publish/delta/spans.js';
import { openPairs } from './delta-pairs.mjs';
import { makePatch } from './delta-patch.mjs';
import { carry, missingTools, sha256, TOOL_NAMES } from './delta-tools.mjs';
import { figure } from './report.mjs';

/** The tool that others would take first. */
const RIVAL = 'zstd -19 --patch-from';
/** Largest share of the full file that a lossless patch may take, by pair. */
const LOSSLESS = {
  'fine-tune': 0.65,
  'mild fine-tune': 0.67,
  'strong fine-tune': 0.74,
  'TensorFlow.js archive': 0.65,
  'convolutional, tfjs': 0.67,
  'convolutional, tfjs, folded': 0.67,
  'LoRA of rank 8, merged': 0.07,
  'int8 per tensor': 0.23,
  'int8 per tensor, mild': 0.23,
  'int4 in blocks of 32, mild': 0.18,
  float16: 0.52,
  'float16, mild': 0.52,
  'embedding, sparse rows': 0.34,
  identical: 0.001,
};
/** How many times as much others have to take, by pair. */
const TIMES = {
  'mild fine-tune': { [RIVAL]: 1.39, bsdiff: 1.43 },
  'strong fine-tune': { [RIVAL]: 1.25, bsdiff: 1.28 },
  'last layer': { [RIVAL]: 1.09, bsdiff: 1.11 },
  'block added': { [RIVAL]: 1.09, bsdiff: 1.11 },
  'embedding, sparse rows': { [RIVAL]: 1.92, bsdiff: 1.27 },
  float16: { [RIVAL]: 1.75, bsdiff: 1.72 },
  'int8 per tensor': { [RIVAL]: 2.8, bsdiff: 3.2 },
  'int4 in blocks of 32': { [RIVAL]: 2.3, bsdiff: 1.5 },
};
/** Pairs of which most tensors are the same: a patch may take 1 % more than those that are not, coded by themselves. */
const STRUCTURAL = ['last layer', 'block added'];
/** Seeds of unbiased rounding; the worst of them counts. */
const SEEDS = [1, 2, 3];
/** Bits of grids that a first release is snapped to, with the largest share that it may take on the way. */
const SNAPPED = { 8: 0.31, 6: 0.25 };
/** Tools that know nothing of the old version. */
const PACKERS = ['gzip -9', 'brotli -11', 'zstd -19'];
/** What a float32 takes that is coded by itself: its exponent is all that can be foretold. */
const OWN_SHARE = 0.83;
const tell = (text) => console.error(`  ${text}`);

/**
 * How many bytes of a new version travel to where the old one is, and those of a first one. Lossless, rounded ("compact") and
 * snapped releases are told apart, and so is what others need for the very file that Inlay carries, and for the file that the
 * trainer left. Every file that comes out is compared by its hash. `INLAY_BENCH_DELTA=quick` leaves the other tools to the
 * first pair.
 */
export async function run() {
  const { pairs, quality } = await openPairs(tell);
  const missing = await missingTools(tell);
  const names = TOOL_NAMES.filter((name) => !missing.has(name));
  const isQuick = process.env.INLAY_BENCH_DELTA === 'quick';
  const first = pairs['fine-tune'];
  const figures = [];
  for (const pair of Object.values(pairs))
    figures.push(...(await lossless(pair, isQuick && pair !== first ? [] : names)));
  const patchers = names.filter((name) => !PACKERS.includes(name));
  figures.push(...(await compact(first, quality, patchers)));
  const packers = names.filter((name) => PACKERS.includes(name));
  figures.push(...(await installs(first, quality, isQuick ? [] : packers)));
  return figures;
}

/** The patch that a publisher makes, and what else would bring the same bytes. */
async function lossless({ name, base, next }, tools) {
  const others = await carryAll(tools, base, next);
  const { bytes, cpuS } = await makePatch(base, next);
  const share = bytes / next.length;
  const row = rowsOf(`${name}, lossless`);
  const target =
    name === 'from scratch'
      ? // The base is of no use: what travels is the file, coded by itself.
        (await makePatch(undefined, next)).bytes / next.length + 0.001
      : STRUCTURAL.includes(name)
        ? changedBytes(base, next) / next.length + 0.01
        : LOSSLESS[name];
  const timed = name === 'fine-tune' ? [...others, ['Inlay', { cpuS }]] : [];
  return [
    row('Inlay', share, target === undefined ? {} : { target: Number(target.toFixed(4)) }),
    ...beside(row, others, share, TIMES[name]),
    ...timed.map(([tool, way]) => row(`processor time: ${tool}`, way.cpuS, { unit: 's' })),
  ];
}

/** What a rounded release takes, and what it loses of what the training has gained. */
async function compact({ base, next }, quality, tools) {
  const [before, after] = [quality(base), quality(next)];
  const trainers = await carryAll(tools, base, next);
  const figures = [];
  const near = [1 / 8, 1 / 4, 1 / 2].map((f) => ({ f, isStochastic: false, seeds: [1] }));
  const small = [1, 2, 4].map((f) => ({ f, isStochastic: true, seeds: SEEDS }));
  for (const { f, isStochastic, seeds } of [...near, ...small]) {
    const releases = seeds.map((seed) => roundOntoGrid(base, next, { f, isStochastic, seed }));
    const judged = releases.map(({ bytes }) => quality(bytes));
    const lost = Math.max(...judged.map(({ loss }) => (loss - after.loss) / (before.loss - after.loss)));
    const agreement = Math.min(...judged.map(({ classes }) => agreementOf(classes, after.classes)));
    const [{ bytes, steps }] = releases;
    const share = (await makePatch(base, bytes, steps)).bytes / bytes.length;
    const row = rowsOf(`fine-tune, compact, step of ${f < 1 ? `1/${1 / f}` : f} σ`);
    const isPinned = f === 2 || f === 1 / 4;
    figures.push(
      row('Inlay', share, isPinned ? { target: f === 2 ? 0.05 : 0.13 } : {}),
      row('gain that is lost, worst seed', lost * 100, { unit: '%', ...(f === 2 && { target: 0.5 }) }),
      row('same class as the trainer’s file, worst seed', agreement * 100, {
        unit: '%',
        ...(f === 1 / 4 && { target: 99, better: 'higher' }),
      }),
    );
    if (!isPinned) continue;
    const others = await carryAll(tools, base, bytes);
    // Goals for the two that others would take first.
    const same = f === 2 ? { [RIVAL]: 6, bsdiff: 3.3 } : {};
    const trained = f === 2 ? { [RIVAL]: 18, bsdiff: 19 } : { [RIVAL]: 7, bsdiff: 7 };
    figures.push(
      ...beside(row, others, share, same, 'same bytes: '),
      ...beside(row, trainers, share, trained, "trainer's bytes: "),
    );
  }
  return figures;
}

/** What others take beside what Inlay does; goals are how many times as much. */
function beside(row, carried, share, goals = {}, whose = '') {
  return [...carried].map(([tool, other]) =>
    row(`${whose}${tool}`, other.share, {
      baseline: share,
      ...(goals[tool] !== undefined && { target: goals[tool], targetIs: 'ratio', better: 'higher' }),
    }),
  );
}

/** What a device downloads that has no release, as it was trained and snapped to a grid, and what an update of one takes that is snapped alike. */
async function installs({ base, next }, quality, packers) {
  const figures = [];
  const trained = quality(base);
  for (const [bits, target] of [[undefined, OWN_SHARE], ...Object.entries(SNAPPED)]) {
    const [from, to] =
      bits === undefined ? [base, next] : [base, next].map((file) => snapToGrid(file, Number(bits)));
    const row = rowsOf(
      bits === undefined ? 'first install, lossless' : `first install, snapped to ${bits} bits`,
    );
    const others = await carryAll(packers, new Uint8Array(0), from);
    const share = (await makePatch(undefined, from)).bytes / from.length;
    figures.push(row('Inlay', share, { target }), ...beside(row, others, share));
    if (bits === undefined) continue;
    const { loss, classes } = quality(from);
    figures.push(
      row('same class as the trainer’s file', agreementOf(classes, trained.classes) * 100, {
        unit: '%',
        target: 99,
        better: 'higher',
      }),
      row('loss', loss, { unit: 'nats', baseline: trained.loss }),
      row('update to a release that is snapped alike', (await makePatch(from, to)).bytes / to.length),
    );
  }
  return figures;
}

/** What removing duplicates of tensors would leave: those that only the new file has, each coded by itself. */
function changedBytes(base, next) {
  const contentsOf = (file) =>
    segmentsOf(file).map(({ offset, sizeBytes }) => file.subarray(offset, offset + sizeBytes));
  const known = new Set(contentsOf(base).map(sha256));
  const fresh = contentsOf(next).filter((bytes) => !known.has(sha256(bytes)));
  return fresh.reduce((sum, bytes) => sum + bytes.length, 0) * OWN_SHARE;
}

/** @returns the share that each tool takes, with its processor time, by name */
async function carryAll(tools, base, next) {
  const carried = new Map();
  for (const name of tools) {
    const { bytes, cpuS } = await carry(name, base, next);
    carried.set(name, { share: bytes / next.length, cpuS });
  }
  return carried;
}

/** Figures of a case; shares of the file, unless they say otherwise. */
function rowsOf(name) {
  return (metric, value, more = {}) =>
    figure({ bench: 'delta', case: name, metric, value, unit: 'of the file', ...more });
}

function agreementOf(classes, expected) {
  return classes.filter((one, i) => one === expected[i]).length / expected.length;
}
