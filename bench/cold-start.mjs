import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { quantile } from './measure.mjs';
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
    const median = (how, part) =>
      quantile(
        times[how].map((time) => time[part]),
        0.5,
      );
    const baseline = median('raw', 'totalMs');
    for (const how of ['inline', 'worker']) {
      figures.push(
        figure({
          bench: 'cold-start',
          case: `${name}, ${how}`,
          metric: 'import to first answer',
          value: median(how, 'totalMs'),
          baseline,
          unit: 'ms',
          target: 1.3,
          targetIs: 'ratio',
        }),
      );
    }
    const work = median('raw', 'workMs');
    figures.push(
      figure({
        bench: 'cold-start',
        case: `${name}, inline`,
        metric: 'load and first run only',
        value: median('inline', 'workMs'),
        baseline: work,
        unit: 'ms',
        target: 1.3,
        targetIs: 'ratio',
      }),
      figure({
        bench: 'cold-start',
        case: `${name}, worker`,
        metric: 'worker start',
        value: median('worker', 'totalMs') - median('inline', 'totalMs'),
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
