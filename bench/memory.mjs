import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { mlp, modelFolder } from './models.mjs';
import { figure } from './report.mjs';

const CYCLES = Number(process.env.BENCH_CYCLES ?? 10_000);
const SOAK_SECONDS = Number(process.env.BENCH_SECONDS ?? 60);
/** Twentieths that count as warm-up: heaps and pools take their size. */
const WARM_UP = 4;
const CHILD = fileURLToPath(new URL('memory-child.mjs', import.meta.url));

/** Whether memory grows: over many loads, and over a long time under load. Each variant in a process of its own. */
export async function run() {
  const path = modelFolder()('mlp', mlp());
  const figures = [];
  const raw = await child('raw', path, CYCLES);
  for (const how of ['inline', 'worker']) {
    figures.push(...compare(`${CYCLES} times load, run, close, ${how}`, await child(how, path, CYCLES), raw));
  }
  figures.push(...compare(`${SOAK_SECONDS} s of mixed calls`, await child('soak', path, SOAK_SECONDS)));
  return figures;
}

function compare(name, own, baseline) {
  const row = (metric, unit, of, target) =>
    figure({
      bench: 'memory',
      case: name,
      metric,
      value: of(own),
      unit,
      ...(baseline !== undefined && { baseline: of(baseline) }),
      ...(target !== undefined && { target }),
    });
  const perThousand = ({ samples }) => (slopeOf(samples.slice(WARM_UP)) / (CYCLES / 20)) * 1000;
  return [
    row('resident after warm-up', 'MiB', ({ samples }) => samples[WARM_UP - 1] / 2 ** 20),
    row('resident at the end', 'MiB', ({ samples }) => samples.at(-1) / 2 ** 20),
    row('growth after warm-up', '%', ({ samples }) => (samples.at(-1) / samples[WARM_UP - 1] - 1) * 100, 5),
    ...(baseline === undefined ? [] : [row('growth per 1,000', 'KiB', (one) => perThousand(one) / 1024)]),
    row('time', 's', ({ seconds }) => seconds),
  ];
}

async function child(variant, path, amount) {
  const args = ['--expose-gc', CHILD, variant, path, String(amount)];
  const { stdout, stderr } = await promisify(execFile)(process.execPath, args);
  if (stderr !== '') console.error(`${variant}: ${stderr.trim()}`);
  return JSON.parse(stdout);
}

/** Slope of the line that fits best, per step. */
function slopeOf(values) {
  const middle = (values.length - 1) / 2;
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const rise = values.reduce((sum, value, i) => sum + (i - middle) * (value - mean), 0);
  return rise / values.reduce((sum, _, i) => sum + (i - middle) ** 2, 0);
}
