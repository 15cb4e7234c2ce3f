import { createHistogram, quantileOf } from '../build/telemetry/histogram.js';
import { FAIL_RATIOS, logMeanExp, stepLogs } from '../build/stats/e-process.js';
import { devicesToVerdict } from '../build/stats/power.js';
import { createRandom, drawBinomial } from '../build/stats/random.js';
import { normalCdf } from '../build/stats/special.js';
import { DEFAULT_GUARD } from '../build/server/guards/defaults.js';
import { newStage, takeLook } from '../build/server/guards/look.js';
import { compareWith, NO_REFERENCES } from '../build/server/guards/verdicts.js';
import { figure } from './report.mjs';

const RUNS = 1000;
const REGRESSION_RUNS = 200;
/** Treated devices, and as many in the control. */
const DEVICES = 250;
/** Every five minutes for a day. */
const LOOKS = 288;
/** Devices that were bad before, and the failures of those and of the others. */
const BAD = { share: 0.05, errors: 0.15, others: 0.003 };
/** Spread of the hardware, as the sigma of a lognormal. */
const HARDWARE = 0.8;

const GUARDS = ['errors', 'latency', 'memory', 'quality', 'silence'];

/** Median treated devices to a verdict, simulated apart in 200 to 400 runs each: base rate, ratio or margin, devices. */
const TABLE = {
  fail: [
    [0.01, 1.5, 6120],
    [0.01, 2, 1980],
    [0.01, 3, 700],
    [0.05, 1.5, 1410],
    [0.05, 2, 420],
    [0.05, 3, 140],
    [0.1, 1.5, 740],
    [0.1, 2, 220],
    [0.1, 3, 80],
  ],
  pass: [
    [0.01, 1.5, 7130],
    [0.01, 2, 2750],
    [0.01, 3, 1200],
    [0.05, 1.5, 1460],
    [0.05, 2, 620],
    [0.05, 3, 260],
    [0.1, 1.5, 840],
    [0.1, 2, 280],
    [0.1, 3, 140],
  ],
};

/** Fleets on which nothing is wrong, judged by the guards and by what others use; then regressions, and the table. */
export function run() {
  const random = createRandom(20_260_301);
  const add = (name, metric, value, unit, rest = {}) =>
    figure({ bench: 'guards', case: name, metric, value, unit, ...rest });
  const perCall = falseByCall(random);
  const single = falseOfOneGuard(random);
  const all = Array.from({ length: RUNS }, () => playStage(random, {}));
  const halted = all.filter(({ failedAt }) => failedAt !== undefined).length / RUNS;
  const figures = [
    add('nothing wrong, heterogeneous fleet, five guards', 'false halts', 100 * halted, '%', {
      baseline: 100 * perCall.peeking,
      target: 1,
    }),
    add('nothing wrong, e-process on devices, one guard', 'false halts', 100 * single, '%'),
    add('nothing wrong, z-test on calls at every look', 'false halts', 100 * perCall.peeking, '%'),
    add('nothing wrong, z-test on calls, once', 'false halts', 100 * perCall.once, '%'),
    add('nothing wrong, error rate above twice the control', 'false halts', 100 * perCall.twice, '%'),
    add('nothing wrong, e-process on calls', 'false halts', 100 * perCall.evidence, '%'),
  ];
  for (const guard of GUARDS) {
    const bad = all.reduce((sum, { rates }) => sum + (rates[guard] ?? 0), 0) / RUNS;
    figures.push(add(`nothing wrong, devices that ${guard} finds bad`, 'rate', 100 * bad, '%'));
  }
  const regressions = [
    ['30 % slower everywhere', { slower: () => 1.3 }],
    ['twice as slow on a fifth', { slower: () => (random() < 0.2 ? 2 : 1) }],
    ['2 % more failures', { errors: 0.02 }],
    ['outputs of half the devices shifted', { shifted: 0.5 }],
  ];
  for (const [name, change] of regressions) {
    const runs = Array.from({ length: REGRESSION_RUNS }, () => playStage(random, change));
    const found = runs.filter(({ failedAt }) => failedAt !== undefined);
    const exposed = found.map(({ judged }) => judged).sort((a, b) => a - b);
    figures.push(
      add(name, 'halted', (100 * found.length) / REGRESSION_RUNS, '%', { target: 95, better: 'higher' }),
      add(name, 'judged devices at the halt, median', exposed[Math.floor(exposed.length / 2)] ?? DEVICES, ''),
    );
  }
  for (const side of ['fail', 'pass']) {
    for (const [baseRate, factor, expected] of TABLE[side]) {
      const isFail = side === 'fail';
      const { median } = devicesToVerdict({
        side,
        baseRate,
        ratio: isFail ? factor : 1,
        delta: isFail ? 1 : factor,
        controlPerTreated: 1,
        threshold: 20,
        most: 60_000,
        runs: 2000,
      });
      figures.push(
        add(`${side} at ${100 * baseRate} %, ${factor}x`, 'devices per arm, median', median, '', {
          baseline: expected,
          // What the median of so few runs of so skewed a distribution may be off, and the grain of the looks.
          ok: Math.abs(median / expected - 1) <= 0.15,
        }),
      );
    }
  }
  return figures;
}

/**
 * Plays a stage through with the code of the server: 250 devices with the candidate and 250 in the control, that make their
 * calls at their own pace.
 */
function playStage(random, { slower = () => 1, errors = 0, shifted = 0 }) {
  const normal = normalsOf(random);
  const options = { ...DEFAULT_GUARD, guards: GUARDS };
  const limits = { bp: 5000, soakS: 86_400, maxS: 172_800 };
  const rules = {
    strategy: 'canary',
    stage: 0,
    stages: 4,
    options,
    limits,
    inconclusive: 'hold',
    soakOnly: false,
  };
  const due = Array.from({ length: LOOKS }, () => ({ ripe: [], heard: [] }));
  for (let i = 0; i < 2 * DEVICES; i += 1) {
    const isTreated = i % 2 === 0;
    const hours = 2.5 * Math.exp(0.8 * normal());
    const look = Math.ceil(hours * 12);
    const isSilent = random() < 0.04;
    due[6].heard.push({ arm: isTreated ? 't' : 'c', bad: isSilent ? 1 : 0 });
    if (isSilent || look >= LOOKS) continue;
    due[look].ripe.push(
      deviceOf(random, normal, i, {
        slower: isTreated ? slower() : 1,
        errors: isTreated ? errors : 0,
        isShifted: isTreated && random() < shifted,
      }),
    );
  }
  let state = newStage();
  let references = NO_REFERENCES;
  let failedAt;
  const rates = {};
  for (const [index, { ripe, heard }] of due.entries()) {
    if (ripe.length + heard.length === 0) continue;
    const judged = {};
    const any = count();
    const comparison = compareWith(
      references,
      ripe.filter(({ arm }) => arm === 'c'),
    );
    references = comparison.next;
    for (const { arm, bad } of heard) tally(judged, 'silence', '', arm, bad);
    for (const device of ripe) {
      let isBad = 0;
      for (const [guard, { bad, stratum }] of Object.entries(comparison.judge(device, options))) {
        if (!GUARDS.includes(guard)) continue;
        tally(judged, guard, stratum, device.arm, bad);
        if (comparison.isEven(guard)) isBad |= bad;
      }
      raise(any, device.arm, isBad);
    }
    const none = { treated: 0, control: 0 };
    const inputs = {
      at: index * 300_000,
      stageAt: 0,
      rules,
      judged,
      any,
      devices: { treated: DEVICES, control: DEVICES },
      fatal: none,
      rejected: none,
      hasCalls: true,
    };
    const taken = takeLook(state, inputs);
    ({ state } = taken);
    if (taken.look.decision.kind !== 'fail') continue;
    failedAt = index;
    break;
  }
  for (const [guard, { total }] of Object.entries(state.evidence)) {
    rates[guard] = (total.treatedBad + total.controlBad) / Math.max(1, total.treated + total.control);
  }
  return { failedAt, judged: state.any.treated, rates };
}

/** A device with 50 calls on what it runs now and 100 before. */
function deviceOf(random, normal, index, { slower, errors, isShifted }) {
  const isBad = random() < BAD.share;
  const rate = isBad ? BAD.errors : BAD.others;
  const speed = 0.03 * Math.exp(HARDWARE * normal());
  const times = (calls, factor) => {
    const histogram = createHistogram();
    for (let i = 0; i < calls; i += 1) {
      const tail = random() < 0.01 ? 5 : 1;
      histogram.record(factor * speed * tail * Math.exp(0.2 * normal()));
    }
    return histogram.snapshot();
  };
  // What a device sees is its own: it leans to some of ten classes.
  const taste = 0.2 + 0.6 * random();
  const outputs = Array.from({ length: 10 }, () => 0);
  for (let i = 0; i < 50; i += 1) {
    const u = random() < taste ? random() ** 2 : random();
    const answer = Math.floor(10 * u);
    outputs[isShifted ? 9 - answer : answer] += 1;
  }
  const memory = 1e8 * Math.exp(0.3 * normal());
  return {
    dev: String(index).padStart(6, '0'),
    arm: index % 2 === 0 ? 't' : 'c',
    cls: 3,
    n: 50,
    errors: drawBinomial(50, Math.min(1, rate + errors), random),
    fatals: 0,
    rejections: 0,
    base_n: 100,
    base_errors: drawBinomial(100, rate, random),
    base_p95: quantileOf(times(100, 1), 0.95),
    base_mem: memory,
    mem: memory * Math.exp(0.11 * normal()),
    hist: JSON.stringify(times(50, slower)),
    base_load: 0,
    load: '',
    outputs: JSON.stringify({ y: outputs }),
    biz: '',
    first_at: 0,
    activated_at: 0,
    last_at: 0,
    gap: 0,
    verdicts: '',
  };
}

/** One Bernoulli per device on errors alone, at 1/α = 20. */
function falseOfOneGuard(random) {
  let halted = 0;
  for (let at = 0; at < RUNS; at += 1) {
    const normal = normalsOf(random);
    const looks = Array.from({ length: LOOKS }, () => ({
      treated: 0,
      treatedBad: 0,
      control: 0,
      controlBad: 0,
    }));
    for (let i = 0; i < 2 * DEVICES; i += 1) {
      const look = looks[Math.min(LOOKS - 1, Math.ceil(2.5 * Math.exp(0.8 * normal()) * 12))];
      const rate = random() < BAD.share ? BAD.errors : BAD.others;
      const isBad = drawBinomial(50, rate, random) >= 2 && drawBinomial(100, rate, random) < 2;
      raise(look, i % 2 === 0 ? 't' : 'c', isBad ? 1 : 0);
    }
    let logs = FAIL_RATIOS.map(() => 0);
    for (const look of looks) {
      if (look.treated > 0 && look.control > 0) logs = stepLogs(logs, FAIL_RATIOS, 1, look);
      if (logMeanExp(logs) < Math.log(20)) continue;
      halted += 1;
      break;
    }
  }
  return halted / RUNS;
}

/** What comes of counting calls: devices differ, so that calls of one device are no independent trials. */
function falseByCall(random) {
  const halted = { peeking: 0, once: 0, twice: 0, evidence: 0 };
  for (let at = 0; at < RUNS; at += 1) {
    const normal = normalsOf(random);
    const arms = [0, 1].map(() => {
      let calls = 0;
      let errors = 0;
      for (let i = 0; i < DEVICES; i += 1) {
        const pace = Math.exp(0.8 * normal());
        calls += pace;
        errors += pace * (random() < BAD.share ? BAD.errors : BAD.others);
      }
      return { calls, rate: errors / calls };
    });
    const fell = { peeking: false, once: false, twice: false, evidence: false };
    const [a, b] = arms.map(() => ({ n: 0, errors: 0 }));
    let logs = FAIL_RATIOS.map(() => 0);
    for (let look = 0; look < LOOKS; look += 1) {
      const fresh = arms.map(({ calls, rate }) => {
        const n = Math.round(calls);
        return { n, errors: drawBinomial(n, rate, random) };
      });
      for (const [i, arm] of [a, b].entries()) {
        arm.n += fresh[i].n;
        arm.errors += fresh[i].errors;
      }
      const isHigh = zTail(a, b) < 0.05;
      if (isHigh) fell.peeking = true;
      fell.once = isHigh;
      if (a.errors >= 20 && a.errors / a.n > 2 * (b.errors / b.n)) fell.twice = true;
      logs = stepLogs(logs, FAIL_RATIOS, 1, {
        treated: fresh[0].n,
        treatedBad: fresh[0].errors,
        control: fresh[1].n,
        controlBad: fresh[1].errors,
      });
      if (logMeanExp(logs) >= Math.log(20)) fell.evidence = true;
    }
    for (const name of Object.keys(halted)) halted[name] += fell[name] ? 1 / RUNS : 0;
  }
  return halted;
}

/** Two proportions, one-sided. */
function zTail(a, b) {
  const pooled = (a.errors + b.errors) / (a.n + b.n);
  const error = Math.sqrt(pooled * (1 - pooled) * (1 / a.n + 1 / b.n));
  return error === 0 ? 1 : 1 - normalCdf((a.errors / a.n - b.errors / b.n) / error);
}

/** Standard normal numbers by Box and Muller, in pairs. */
function normalsOf(random) {
  let spare;
  return () => {
    if (spare !== undefined) {
      const value = spare;
      spare = undefined;
      return value;
    }
    const radius = Math.sqrt(-2 * Math.log(1 - random()));
    const angle = 2 * Math.PI * random();
    spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  };
}

function count() {
  return { treated: 0, treatedBad: 0, control: 0, controlBad: 0 };
}

function tally(judged, guard, stratum, arm, bad) {
  const strata = (judged[guard] ??= {});
  raise((strata[stratum] ??= count()), arm, bad);
}

function raise(counts, arm, bad) {
  counts[arm === 'c' ? 'control' : 'treated'] += 1;
  counts[arm === 'c' ? 'controlBad' : 'treatedBad'] += bad;
}
