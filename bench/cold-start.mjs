import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { median } from './measure.mjs';
import { cnn, modelFolder, trivial } from './models.mjs';
import { figure } from './report.mjs';

const ROUNDS = 11;
const CHILD = fileURLToPath(new URL('cold-start-child.mjs', import.meta.url));

/** From nothing imported to the first answer, each time in a fresh process. */
export async function run() {
  const write = modelFolder();
  const models = { trivial: write('trivial', trivial()), 'cnn 3.6 MB': write('cnn', cnn()) };
  const figures = [];
  for (const [name, path] of Object.entries(models)) {
    const times = { raw: [], inline: [], worker: [] };
    for (let round = 0; round < ROUNDS; round += 1) {
      for (const how of Object.keys(times)) times[how].push(await child(how, path));
    }
    const of = (how, part) => median(times[how].map((time) => time[part]));
    const row = (how, metric, part, target) =>
      figure({
        bench: 'cold-start',
        case: `${name}, ${how}`,
        metric,
        value: of(how, part),
        baseline: of('raw', part),
        unit: 'ms',
        ...(target && { target: 1.3, targetIs: 'ratio' }),
      });
    figures.push(
      row('inline', 'create, load, first run', 'workMs', true),
      row('inline', 'the same, from the first import', 'totalMs', false),
      row('worker', 'the same, worker start included', 'totalMs', true),
      figure({
        bench: 'cold-start',
        case: `${name}, worker`,
        metric: 'worker start alone',
        value: of('worker', 'totalMs') - of('inline', 'totalMs'),
        unit: 'ms',
      }),
    );
  }
  return figures;
}

async function child(how, path) {
  const { stdout } = await promisify(execFile)(process.execPath, [CHILD, how, path]);
  return JSON.parse(stdout);
}
