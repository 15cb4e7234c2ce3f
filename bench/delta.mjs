import { createMemoryStore } from 'inlay/stores/memory';
import { nodePlatform } from '../build/platform-node.js';
import { roundOntoGrid } from '../build/publish/compact/grid.js';
import { encodePatch } from '../build/publish/delta/encode.js';
import { segmentsOf } from '../build/publish/delta/spans.js';
import { createDeltaPatcher } from '../build/update/delta/patcher.js';
import { openPairs } from './delta-pairs.mjs';
import { assertSame, carry, missingTools, sha256, TOOL_NAMES } from './delta-tools.mjs';
import { figure } from './report.mjs';

/** Largest share of the full file that a lossless patch may take, by pair. */
const LOSSLESS = {
  'fine-tune': 0.65,
  'int8 per tensor, mild': 0.23,
  'float16, mild': 0.52,
  'embedding, sparse rows': 0.34,
  identical: 0.001,
};
/** Pairs of which most tensors are the same: a patch may take 1 % more than those that are not, coded by themselves. */
const STRUCTURAL = ['last layer', 'block added'];
/** Seeds of unbiased rounding; the worst of them counts. */
const SEEDS = [1, 2, 3];
/** Tools that know nothing of the old version. */
const PACKERS = ['gzip -9', 'brotli -11', 'zstd -19'];
/** What others are compared with where the table has room for one. */
const RIVAL = 'zstd -19 --patch-from';
/** What a float32 takes that is coded by itself: its exponent is all that can be foretold. */
const OWN_SHARE = 0.83;
const platform = nodePlatform();
const patcher = createDeltaPatcher(platform);
const tell = (text) => console.error(`  ${text}`);

/**
 * How many bytes of a new version travel to where the old one is. Lossless and rounded ("compact") releases are told apart,
 * and so is what others need for the very file that Inlay carries, and for the file that the trainer left. Every file that comes
 * out is compared by its hash. `INLAY_BENCH_DELTA=quick` leaves the other tools to the first pair.
 */
export async function run() {
  const { pairs, quality } = await openPairs(tell);
  const missing = await missingTools(tell);
  const names = TOOL_NAMES.filter((name) => !missing.has(name));
  const isQuick = process.env.INLAY_BENCH_DELTA === 'quick';
  const figures = [];
  for (const pair of Object.values(pairs)) {
    const isFirst = pair.name === 'fine-tune';
    figures.push(...(await lossless(pair, isQuick && !isFirst ? [] : names)));
  }
  const patchers = names.filter((name) => !PACKERS.includes(name));
  figures.push(...(await compact(pairs['fine-tune'], quality, patchers)));
  return figures;
}

/** The patch that a publisher makes, and what else would bring the same bytes. */
async function lossless({ name, base, next }, tools) {
  const others = await carryAll(tools, base, next);
  const bytes = await patchBytes(base, next);
  const share = bytes / next.length;
  const row = (metric, value, more = {}) =>
    figure({ bench: 'delta', case: `${name}, lossless`, metric, value, unit: 'of the file', ...more });
  const baseline = others.get(RIVAL) === undefined ? {} : { baseline: others.get(RIVAL) / next.length };
  const target =
    name === 'from scratch'
      ? // The base is of no use: what travels is the file, coded by itself.
        (await patchBytes(undefined, next)) / next.length + 0.001
      : STRUCTURAL.includes(name)
        ? changedBytes(base, next) / next.length + 0.01
        : LOSSLESS[name];
  return [
    row('Inlay', share, { ...baseline, ...(target !== undefined && { target: Number(target.toFixed(4)) }) }),
    ...rows(row, others, next.length),
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
    const share = (await patchBytes(base, bytes, steps)) / bytes.length;
    const row = (metric, value, more = {}) =>
      figure({
        bench: 'delta',
        case: `fine-tune, compact, step of ${f < 1 ? `1/${1 / f}` : f} σ`,
        metric,
        value,
        unit: 'of the file',
        ...more,
      });
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
    for (const [name, size] of others) {
      // Goals for the two that others would take first.
      const goal = f === 2 ? { [RIVAL]: 6, bsdiff: 3.3 }[name] : undefined;
      figures.push(
        row(`same bytes: ${name}, times Inlay's`, size / bytes.length / share, {
          unit: '×',
          ...(goal !== undefined && { target: goal, better: 'higher' }),
        }),
      );
    }
    for (const [name, size] of trainers) {
      const goal = [RIVAL, 'bsdiff'].includes(name) ? (f === 2 ? 18 : 7) : undefined;
      figures.push(
        row(`trainer's bytes: ${name}, times Inlay's`, size / next.length / share, {
          unit: '×',
          ...(goal !== undefined && { target: goal, better: 'higher' }),
        }),
      );
    }
  }
  return figures;
}

/** Encodes a patch, and applies it as a device does. @returns its bytes */
async function patchBytes(base, next, steps) {
  const patch = encodePatch(base, next, { platform, ...(steps && { steps }) });
  const store = createMemoryStore();
  const [from, way] = await Promise.all(
    [base ?? new Uint8Array(0), patch].map((bytes) => store.putBlob(sha256(bytes), bytes)),
  );
  const pieces = [];
  for await (const piece of patcher.apply(from, way, next.length)) pieces.push(piece.slice());
  assertSame('the patch', Buffer.concat(pieces), next);
  return patch.length;
}

/** What removing duplicates of tensors would leave: those that only the new file has, each coded by itself. */
function changedBytes(base, next) {
  const contentsOf = (file) =>
    segmentsOf(file).map(({ offset, sizeBytes }) => file.subarray(offset, offset + sizeBytes));
  const known = new Set(contentsOf(base).map(sha256));
  const fresh = contentsOf(next).filter((bytes) => !known.has(sha256(bytes)));
  return fresh.reduce((sum, bytes) => sum + bytes.length, 0) * OWN_SHARE;
}

async function carryAll(tools, base, next) {
  const sizes = new Map();
  for (const name of tools) sizes.set(name, await carry(name, base, next));
  return sizes;
}

function rows(row, sizes, length) {
  return [...sizes].map(([name, size]) => row(name, size / length));
}

function agreementOf(classes, expected) {
  return classes.filter((one, i) => one === expected[i]).length / expected.length;
}
