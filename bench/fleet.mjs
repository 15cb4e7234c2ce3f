import { DEFAULT_GUARD } from '../build/server/guards/defaults.js';
import { expectedExposure } from '../build/server/simulate/expected.js';
import { simulateRollout } from '../build/server/simulate/simulate.js';
import { figure } from './report.mjs';

/** `INLAY_BENCH_FLEET=quick` shrinks the fleets to a fiftieth, for a look at whether it works. */
const SHRINK = process.env.INLAY_BENCH_FLEET === 'quick' ? 50 : 1;
const RUNS = SHRINK > 1 ? 1 : 5;
const FLEET = 100_000 / SHRINK;
const LARGE_FLEET = 1_000_000 / SHRINK;
/** Calls fail on one device in a hundred before, and on one in ten with the release. */
const REGRESSION = { kind: 'errors', before: 0.01, after: 0.1 };
const REPORT_S = 900;
/** From a poll to a verdict on the device: six minutes to fetch, and 50 calls at 240 an hour. */
const BEGIN_S = 360 + 750;
const LOOK_S = 60;
const STAGE = { bp: 100, ctl: 900, soakS: 3600, maxS: 86_400 };
/** What a small fleet needs to have enough devices in a stage; others take the stages that nobody has chosen. */
const GOOD_STAGES = SHRINK > 1 && [
  { ...STAGE, bp: 4000, ctl: 6000 },
  { bp: 10_000, soakS: 3600, maxS: 86_400 },
];
/** Everybody reports in the later stages of a good release. */
const GOOD_REPORT_S = 3600;

/** Rollouts in fleets that are simulated: what a bad release reaches before it is halted, and how long a million takes. */
export async function run() {
  const figures = [];
  const add = (name, metric, value, unit, rest = {}) =>
    figures.push(figure({ bench: 'fleet', case: name, metric, value, unit, ...rest }));
  for (const hours of [6, 1]) {
    const pollS = hours * 3600;
    const results = [];
    for (let seed = 1; seed <= RUNS; seed += 1) {
      results.push(await simulateRollout({ ...bad, devices: FLEET, pollS, hours: 6, seed }));
    }
    const name = `${FLEET} devices, 1 % → 10 % fail, stage of 1 %, poll ${hours} h`;
    const { exposed: expected } = expectedExposure({
      ...{ fleet: FLEET, bp: STAGE.bp, ctl: STAGE.ctl, spreadS: pollS },
      ...{ beginS: BEGIN_S, reportS: REPORT_S, lookS: LOOK_S },
      ...{ guard: DEFAULT_GUARD, regression: REGRESSION },
    });
    const halted = results.filter(({ outcome }) => outcome === 'halted');
    add(name, 'halted', (100 * halted.length) / RUNS, '%', { target: 100, better: 'higher' });
    add(name, 'exposed at halt, median', median(results, 'exposed'), 'devices', {
      ...{ baseline: expected, target: 1.2, targetIs: 'ratio' },
    });
    add(name, 'time to halt, median', median(results, 'hours'), 'h');
  }
  const good = await simulateRollout({
    ...{ devices: FLEET, reportS: GOOD_REPORT_S, hours: 72 },
    programme: { strategy: 'canary', ...(GOOD_STAGES && { stages: GOOD_STAGES }) },
  });
  const isDone = good.outcome === 'completed';
  add(`${FLEET} devices, a good release`, 'completes', isDone ? 1 : 0, '', { target: 1, better: 'higher' });
  add(`${FLEET} devices, a good release`, 'time to complete', good.hours, 'h');

  let mostBytes = 0;
  const beganMs = performance.now();
  const beganCpu = process.cpuUsage();
  const large = await simulateRollout({
    ...{ ...bad, devices: LARGE_FLEET, hours: 24 },
    onProgress: () => {
      mostBytes = Math.max(mostBytes, process.memoryUsage.rss());
    },
  });
  const name = `${LARGE_FLEET} devices, 1 % → 10 % fail, stage of 1 %, poll 1 h`;
  add(name, 'exposed at halt', large.exposed, 'devices');
  add(name, 'time', (performance.now() - beganMs) / 60_000, 'min', { target: 10 });
  const { user, system } = process.cpuUsage(beganCpu);
  add(name, 'time of the processors', (user + system) / 60e6, 'min');
  add(name, 'memory', Math.max(mostBytes, process.memoryUsage.rss()) / 1e9, 'GB', { target: 4 });
  return figures;
}

const bad = {
  regression: REGRESSION,
  reportS: REPORT_S,
  programme: { strategy: 'canary', stages: [STAGE, { ...STAGE, bp: 1000 }] },
};

function median(results, name) {
  const sorted = results.map((result) => result[name]).sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}
