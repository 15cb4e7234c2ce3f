/** What a rule sees at one moment. */

import { accuracyBound } from '../../stats/drift.ts';
import type { DriftRow } from '../api/answers.ts';
import { rankOf, type Rank, type Sight } from './machine.ts';
import { LEVELS, type AlertRule, type Clause, type Condition, type Level } from './rule.ts';
import { valueOf, type Labels, type Signals, type Sum } from './signals.ts';

/** What a rule sees of one group. Groups without enough data are not seen at all. */
export interface Observation extends Sight {
  readonly labels: Labels;
  readonly measures: Readonly<Record<string, number>>;
  /** The figure that counts. */
  readonly value: number;
  /** For people; without the names of the labels. */
  readonly text: string;
  /** Features that drift, for a training. */
  readonly features?: readonly DriftRow[];
}

/** Milliseconds of the 5 minutes in which counts are kept. */
export const SLOT_MS = 300_000;
const HOUR_MS = 3_600_000;
/** Fewer devices than this are not told by number. */
const FEW_DEVICES = 20;
/** Calls of a model in the days before that make a baseline. */
const BASELINE_CALLS = 100;
/** For so long a stopped rollout is news. */
const ROLLOUT_MS = 86_400_000;

/** Looks at everything that a rule is about. @param now - milliseconds since 1970. */
export async function observe(
  rule: AlertRule,
  signals: Signals,
  now: number,
): Promise<readonly Observation[]> {
  const { cond } = rule;
  switch (cond.kind) {
    case 'threshold':
      return (await enough(rule, signals, now, cond.windowS)).flatMap((sum) => {
        const value = valueOf(cond.signal, sum);
        if (value === undefined) return [];
        const share =
          cond.signal === 'fatal' && sum.devices > 0 ? { share: Math.min(1, value / sum.devices) } : {};
        const text = `${describe(cond.signal, value)} in ${span(cond.windowS)}, ${extent(sum)}`;
        return [seen(rule, sum.labels, { value, ...share }, text)];
      });
    case 'ratio':
      return ratios(rule, cond, signals, now);
    case 'burn-rate':
      return burns(rule, cond, signals, now);
    case 'absence': {
      const silences = await signals.silences(rule.scope, rule.by, now);
      return silences.flatMap(({ labels, lastAt, devices }) => {
        const value = (now - lastAt) / 1000;
        const text = `nobody has reported for ${span(Math.round(value))}; ${devices} devices did in the hour before`;
        return devices < rule.min.devices ? [] : [seen(rule, labels, { value }, text)];
      });
    }
    case 'drift':
      return drifts(rule, cond, signals);
    case 'accuracy':
      return accuracies(rule, cond, signals, now);
    case 'guard': {
      const rollouts = await signals.rollouts(rule.scope, now);
      return rollouts.map(({ labels, status, reason, updatedAt }) => {
        const isNews = now - updatedAt < ROLLOUT_MS;
        const is = (name: string): number => Number(isNews && status === name);
        const measures = { failed: is('failed'), held: is('held') };
        return seen(rule, labels, measures, `the rollout is ${status}: ${reasonText(reason)}`);
      });
    }
    case 'loss':
      break;
  }
  return losses(rule, cond, signals, now);
}

async function losses(
  rule: AlertRule,
  { windowS }: Condition & { kind: 'loss' },
  signals: Signals,
  now: number,
): Promise<readonly Observation[]> {
  const to = (Math.floor(now / HOUR_MS) + 1) * HOUR_MS;
  const health = await signals.health(to - HOUR_MS - windowS * 1000, to);
  const { lost = 0, reports = 0, skewed = 0 } = health;
  if (reports + lost < Math.max(1, rule.min.n)) return [];
  const measures = {
    value: lost / (lost + reports),
    skew: reports > 0 ? skewed / reports : 0,
    silentArms: await signals.silentArms(now),
  };
  const text = `${percent(measures.value)} of ${lost + reports} reports were lost, ${percent(measures.skew)} came with a wrong clock, ${measures.silentArms} arms of rollouts are silent`;
  return [seen(rule, {}, measures, text)];
}

/** Sums of the window that ends with the present 5 minutes, where there are enough devices and calls. */
async function enough(
  { scope, by, min }: AlertRule,
  signals: Signals,
  now: number,
  windowS: number,
): Promise<readonly Sum[]> {
  const slot = Math.floor(now / SLOT_MS) * SLOT_MS;
  const sums = await signals.sums(scope, by, slot - windowS * 1000, slot + SLOT_MS);
  return sums.filter(({ counts, devices }) => devices >= min.devices && counts.n >= Math.max(1, min.n));
}

async function ratios(
  rule: AlertRule,
  cond: Condition & { kind: 'ratio' },
  signals: Signals,
  now: number,
): Promise<readonly Observation[]> {
  const { signal, windowS, baselineDays } = cond;
  const sums = await enough(rule, signals, now, windowS);
  if (sums.length === 0) return [];
  // A new version is measured against what its model was like before.
  const { version: _, ...scope } = rule.scope;
  const by = rule.by.filter((label) => label !== 'version');
  // Aligned to the hour, so that it is read once an hour.
  const end = Math.floor((now - windowS * 1000) / HOUR_MS) * HOUR_MS;
  const before = await signals.sums(scope, by, end - baselineDays * 86_400_000, end);
  return sums.flatMap((sum) => {
    const value = valueOf(signal, sum);
    if (value === undefined) return [];
    const base = before.find(({ labels }) => by.every((name) => labels[name] === sum.labels[name]));
    const usual = base && base.counts.n >= BASELINE_CALLS ? usualValue(signal, base) : undefined;
    const isKnown = usual !== undefined && usual > 0;
    const compared = isKnown ? `, ${(value / usual).toPrecision(3)} × as usual` : '';
    const text = `${describe(signal, value)}${compared} in ${span(windowS)}, ${extent(sum)}`;
    return [seen(rule, sum.labels, { value, ...(isKnown && { ratio: value / usual }) }, text)];
  });
}

/** A fleet without a single failure has a rate all the same: nobody knows it better than to half a call. */
function usualValue(signal: (Condition & { kind: 'ratio' })['signal'], base: Sum): number | undefined {
  const { n, ok } = base.counts;
  return signal === 'errorRate' ? (n - ok + 0.5) / (n + 1) : valueOf(signal, base);
}

/** Burn of an allowance (Beyer et al., The Site Reliability Workbook, chapter 5). */
async function burns(
  rule: AlertRule,
  cond: Condition & { kind: 'burn-rate' },
  signals: Signals,
  now: number,
): Promise<readonly Observation[]> {
  const spans = [...new Set(cond.windows.flatMap(({ longS, shortS }) => [longS, shortS]))];
  const bySpan = new Map<number, ReadonlyMap<string, number>>();
  const groups = new Map<string, Labels>();
  for (const windowS of spans) {
    const rates = new Map<string, number>();
    for (const sum of await enough(rule, signals, now, windowS)) {
      const key = JSON.stringify(sum.labels);
      groups.set(key, sum.labels);
      rates.set(key, (valueOf('errorRate', sum) ?? 0) / (1 - cond.objective));
    }
    bySpan.set(windowS, rates);
  }
  return [...groups].map(([key, labels]) => {
    const burn = (windowS: number): number => bySpan.get(windowS)?.get(key) ?? 0;
    const highest = (part: number): Rank =>
      cond.windows.reduce<Rank>((rank, { longS, shortS, factor, level }) => {
        const isBurning = Math.min(burn(longS), burn(shortS)) >= factor * part;
        return isBurning && rankOf(level) > rank ? rankOf(level) : rank;
      }, 0);
    const worst = cond.windows.reduce(
      (most, it) => (burn(it.longS) / it.factor > burn(most.longS) / most.factor ? it : most),
      cond.windows[0] as (typeof cond.windows)[number],
    );
    const value = burn(worst.longS);
    const text = `failures use up ${value.toPrecision(3)} × the allowance of ${percent(1 - cond.objective)} over ${span(worst.longS)}, ${burn(worst.shortS).toPrecision(3)} × over ${span(worst.shortS)}`;
    return { labels, rank: highest(1), kept: highest(rule.clear.ratio), measures: { value }, value, text };
  });
}

async function drifts(
  rule: AlertRule,
  { against, windowS }: Condition & { kind: 'drift' },
  signals: Signals,
): Promise<readonly Observation[]> {
  const { channel, model, version } = rule.scope;
  const rows = await signals.drift.rows({ channel, model, version, windowS }, against);
  const groups = new Map<string, { labels: Labels; rows: DriftRow[] }>();
  for (const row of rows) {
    if (row.verdict === 'too-few') continue;
    const labels = { model: row.model, version: row.version };
    const key = JSON.stringify(labels);
    groups.set(key, { labels, rows: [...(groups.get(key)?.rows ?? []), row] });
  }
  return [...groups.values()].map(({ labels, rows: of }) => {
    const features = of.filter(({ verdict }) => verdict !== 'none');
    const value = Math.max(...of.map(({ verdict }) => ['none', 'warning', 'critical'].indexOf(verdict)));
    const psi = Math.max(...of.map((row) => row.psi ?? 0));
    // One feature of one or two is a share, too, but says no more than its verdict.
    const measures = { value, psi, ...(features.length > 1 && { share: features.length / of.length }) };
    const names = features.slice(0, 5).map((row) => `${row.feature} (PSI ${(row.psi ?? 0).toPrecision(3)})`);
    const text =
      features.length === 0
        ? `none of ${of.length} features drifts`
        : `${features.length} of ${of.length} features drift from ${against === 'training' ? 'the training data' : 'the week before'}: ${names.join(', ')}`;
    return { ...seen(rule, labels, measures, text), features };
  });
}

async function accuracies(
  rule: AlertRule,
  { windowS }: Condition & { kind: 'accuracy' },
  signals: Signals,
  now: number,
): Promise<readonly Observation[]> {
  const profiles = await signals.drift.profiles();
  const by = [...new Set([...rule.by, 'model', 'version'] as const)];
  return (await enough({ ...rule, by }, signals, now, windowS)).flatMap(({ labels, counts: { fb } }) => {
    const { model, version } = labels;
    const of = profiles.find((it) => it.model === model && it.version === version);
    const reference = of?.profile.accuracy;
    if (reference === undefined || !fb || fb.n === 0) return [];
    const bound = accuracyBound(fb.ok, fb.n - fb.ok);
    const value = Math.max(0, reference - bound);
    const text = `${percent(fb.ok / fb.n)} of ${fb.n} labels agree, at most ${percent(bound)} at 95 %, against ${percent(reference)} in the reference`;
    return [seen(rule, labels, { value }, text)];
  });
}

function seen(
  rule: AlertRule,
  labels: Labels,
  measures: Readonly<Record<string, number>>,
  text: string,
): Observation {
  const rank = reached(rule, measures, 1);
  const kept = Math.max(rank, reached(rule, measures, rule.clear.ratio)) as Rank;
  return { labels, rank, kept, measures, value: measures['value'] ?? 0, text };
}

/** Highest level that measures reach when thresholds are eased to a part of what they are. */
function reached(
  { cond, levels }: AlertRule,
  measures: Readonly<Record<string, number>>,
  part: number,
): Rank {
  const isBelow = 'below' in cond && cond.below;
  const holds = (clause: Clause): boolean =>
    Object.entries(typeof clause === 'number' ? { value: clause } : clause).every(([name, threshold]) => {
      const measure = Object.hasOwn(measures, name) ? measures[name] : undefined;
      if (measure === undefined) return false;
      return isBelow ? measure <= threshold / part : measure >= threshold * part;
    });
  const isReached = (level: Level): boolean => {
    const clauses = levels[level];
    return clauses !== undefined && (isList(clauses) ? clauses.some(holds) : holds(clauses));
  };
  const level = LEVELS.filter(isReached).at(-1);
  return level ? rankOf(level) : 0;
}

function isList(clauses: Clause | readonly Clause[]): clauses is readonly Clause[] {
  return Array.isArray(clauses);
}

const units: Readonly<Record<string, (value: number) => string>> = {
  errorRate: (value) => `${percent(value)} of calls failed`,
  p50: (value) => `half of the calls took more than ${time(value)}`,
  p95: (value) => `5 % of calls took more than ${time(value)}`,
  p99: (value) => `1 % of calls took more than ${time(value)}`,
  loadP95: (value) => `5 % of opens took more than ${time(value)}`,
  fatal: (value) => `${value} runs of the app ended in a call`,
  calls: (value) => `${value} calls`,
  devices: (value) => `${value} devices`,
  cacheMissRate: (value) => `${percent(value)} of calls were not in the cache`,
  memory: (value) => `apps took ${(value / 1_048_576).toPrecision(3)} MiB`,
};

function describe(signal: string, value: number): string {
  return units[signal]?.(value) ?? String(value);
}

function time(value: number): string {
  return value < 1 ? `${(value * 1000).toPrecision(3)} ms` : `${value.toPrecision(3)} s`;
}

function percent(share: number): string {
  return `${Number((share * 100).toPrecision(3))} %`;
}

function extent({ counts, devices }: Sum): string {
  const few = devices < FEW_DEVICES ? `fewer than ${FEW_DEVICES}` : `at least ${devices}`;
  return `${counts.n} calls of ${few} devices`;
}

/** A length of time for people. */
function span(seconds: number): string {
  const [unit, size] =
    seconds % 86_400 === 0
      ? ['d', 86_400]
      : seconds >= 7200
        ? ['h', 3600]
        : seconds >= 60
          ? ['min', 60]
          : ['s', 1];
  return `${Math.round(seconds / Number(size))} ${unit}`;
}

/** Reasons are JSON with figures, or a sentence. */
function reasonText(reason: string): string {
  try {
    const parsed: unknown = JSON.parse(reason);
    if (typeof parsed === 'string') return parsed;
    const text: unknown =
      typeof parsed === 'object' && parsed !== null ? Reflect.get(parsed, 'text') : undefined;
    return typeof text === 'string' ? text : reason.slice(0, 300);
  } catch {
    return reason.slice(0, 300);
  }
}
