import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { median } from './measure.mjs';
import { figure } from './report.mjs';

const MEGABYTES = 20;
const ROUNDS = 5;
const CHILD = fileURLToPath(new URL('install-child.mjs', import.meta.url));
const CASES = { pieces: 'in verified pieces', whole: 'in one piece' };

/** How fast a model comes into the store, and what memory that takes, beside the least that anybody has to do for it. */
export async function run() {
  const { plain, ...times } = await child('times');
  const peaks = { plain: [], pieces: [], whole: [] };
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const how of Object.keys(peaks)) peaks[how].push((await child(how)).peakBytes);
  }
  return Object.entries(CASES).flatMap(([how, name]) => {
    const common = { bench: 'install', case: `${MEGABYTES} MB from loopback into a folder, ${name}` };
    const time = (metric, of, target) =>
      figure({
        ...common,
        metric,
        value: median(times[how].map(of)),
        baseline: median(plain.map(of)),
        unit: 'ms',
        ...(target !== undefined && { target, targetIs: 'ratio' }),
      });
    return [
      time('time', ({ ms }) => ms, 1.3),
      time('processor time', ({ cpuMs }) => cpuMs),
      figure({
        ...common,
        metric: 'memory beyond that of the baseline',
        value: (median(peaks[how]) - median(peaks.plain)) / 1e6,
        unit: 'MB',
        target: 16,
      }),
    ];
  });
}

async function child(what) {
  const { stdout } = await promisify(execFile)(process.execPath, [CHILD, what, String(MEGABYTES * 1e6)]);
  return JSON.parse(stdout);
}
