/** Verdicts on single devices: whether each does worse on what it runs now than it did before. Pure. */

import { chanceOfAtLeast } from '../../stats/special.ts';
import { mergeHistograms, quantileOf } from '../../telemetry/histogram.ts';
import type { HistogramCounts } from '../../telemetry/report.ts';
import type { StageDeviceTable } from '../db/schema.ts';
import { SLOW_DEVICE_CALLS, SLOW_DEVICE_MS } from './defaults.ts';
import type { SeenBins } from './output-bins.ts';
import type { GuardName, GuardOptions } from './programme.ts';

/** What is read of a device. */
export type Device = Omit<StageDeviceTable, 'rollout' | 'stage' | 'consent' | 'activations' | 'judged_at'>;

/** A verdict, and what devices it may be compared with: `''` for all that have a baseline of their own, or a class. */
export interface Verdict {
  readonly bad: 0 | 1;
  readonly stratum: string;
}

/** Verdicts by guard; absent where the device has nothing to say. */
export type Verdicts = Readonly<Partial<Record<GuardName, Verdict>>>;

/**
 * What control devices did, for devices without a baseline and for shares of answers. None of those that are judged by it
 * is among them, so that it treats both arms alike; see {@link compareWith}.
 */
export interface References {
  readonly classes: Readonly<
    Record<
      string,
      {
        readonly n: number;
        readonly hist: HistogramCounts;
        readonly mem: number;
        /** How many of them opened the model, and how long that took. */
        readonly opened?: number;
        readonly load?: HistogramCounts;
      }
    >
  >;
  /** Counts of the outputs by name. */
  readonly outputs: Readonly<Record<string, readonly number[]>>;
  /** How far control devices were from those: how many, by hundredths. */
  readonly distances: readonly number[];
  /** How many of them opened the model, of how many. */
  readonly opens?: readonly [opened: number, of: number];
  /** Which outputs either arm has counted, in which bins. */
  readonly bins?: SeenBins;
}

/** What the devices of one look are compared with. */
export interface Comparison {
  /** Judges one of them. */
  judge(device: Device, options: GuardOptions): Verdicts;
  /** Whether about as many control devices have a verdict of this kind as others. */
  isEven(guard: GuardName): boolean;
  /** For the next look. */
  readonly next: References;
}

/** No control devices. */
export const NO_REFERENCES: References = { classes: {}, outputs: {}, distances: [] };

/** Control devices that a comparison with their class needs, and after which further ones say no more. */
const enoughPeers = 20;
const plentyOfPeers = 1000;
/** Share of failed calls above which a device was bad before, and is none that the candidate made so. */
export const SOUND_RATE = 0.02;
/**
 * Failing calls that every device may have, and how improbable so many have to be at that rate to be too many: two are
 * until the 82nd call, and of more calls as many as say the same.
 */
const toleratedRate = 0.01;
const surprise = 0.2;
/** Share of control devices whose answers count as unusual. */
const unusualShare = 0.05;
/** Counts of an output that a comparison needs. */
const enoughOutputs = 30;

/**
 * Tells whether a device has made the calls that it is judged by, or never will on the candidate.
 * @param earlyUntil - those that gave it up are judged if they began until then: when most of those that began with them are
 *   judged, too. They would be the first ones otherwise, and nothing but bad.
 */
export function isRipe(device: Device, calls: number, now: number, earlyUntil: number): boolean {
  const { n, first_at: firstAt, rejections } = device;
  if (n >= calls) return true;
  // Only with a sound past: among devices without one, the candidate's bad ones would come first and the control's later.
  if (rejections > 0 && firstAt <= earlyUntil && hasSoundPast(device)) return true;
  return now - firstAt >= SLOW_DEVICE_MS && (n >= SLOW_DEVICE_CALLS || rejections > 0);
}

/**
 * Judges a ripe device. Errors: as many as two in the first 50 are, or the candidate was given up there. Times of calls and
 * opens, and memory: above a multiple of its own before. Quality: shares of answers further from those of the control than
 * 95 % of the control's own.
 */
export function judge(device: Device, options: GuardOptions, references: References): Verdicts {
  const { n, errors, fatals, rejections, cls } = device;
  const hasPast = device.base_n > 0;
  const peers = references.classes[cls];
  const verdict = (bad: boolean, own: boolean): Verdict => ({
    bad: bad ? 1 : 0,
    stratum: own ? '' : String(cls),
  });
  const all: Partial<Record<GuardName, Verdict>> = {};

  const failed = errors + fatals;
  const ownRate = hasPast ? device.base_errors / device.base_n : 0;
  const tolerated = Math.max(toleratedRate, ownRate);
  const isFailing = failed >= 2 && chanceOfAtLeast(failed, n + fatals, tolerated) <= surprise;
  const wasSound = ownRate < SOUND_RATE;
  all.errors = verdict(wasSound && (isFailing || rejections > 0), hasPast);

  const hist = parsed<HistogramCounts>(device.hist);
  const p95 = hist && quantileOf(hist, 0.95);
  if (p95 !== undefined) {
    const isOwn = device.base_p95 > 0;
    const before = isOwn
      ? device.base_p95
      : peers && peers.n >= enoughPeers
        ? quantileOf(peers.hist, 0.95)
        : undefined;
    if (before !== undefined) all.latency = verdict(p95 > options.maxP95Ratio * before, isOwn);
  }
  // Half of the opens: the first one of a version has more to do than the others.
  const load = parsed<HistogramCounts>(device.load);
  const opening = load && quantileOf(load, 0.5);
  if (opening !== undefined) {
    const isOwn = device.base_load > 0;
    const before = isOwn
      ? device.base_load
      : peers?.load && (peers.opened ?? 0) >= enoughPeers
        ? quantileOf(peers.load, 0.95)
        : undefined;
    if (before !== undefined) all.load = verdict(opening > options.maxLoadRatio * before, isOwn);
  }
  if (device.mem > 0) {
    const isOwn = device.base_mem > 0;
    const before = isOwn ? device.base_mem : peers && peers.n >= enoughPeers ? peers.mem / peers.n : 0;
    if (before > 0) all.memory = verdict(device.mem > options.maxMemoryRatio * before, isOwn);
  }
  const limit = usualDistance(references.distances);
  const distance = limit === undefined ? undefined : distanceOf(outputsOf(device), references.outputs);
  if (limit !== undefined && distance !== undefined) all.quality = verdict(distance > limit, true);
  return all;
}

/** Gives the value of a device for the business guard: the mean of the event's sum per call. */
export function bizOf({ biz, n }: Device, name: string): number | undefined {
  if (n === 0) return undefined;
  const events = parsed<Readonly<Record<string, readonly [n: number, sum: number]>>>(biz) ?? {};
  return (Object.hasOwn(events, name) ? (events[name]?.[1] ?? 0) : 0) / n;
}

/**
 * Says what the devices of one look are compared with: what earlier looks have seen of the control. Where that is not enough
 * yet, it is every second of these control devices, by name, and they get no verdict themselves; otherwise a control that
 * is ripe all at once would never be judged. Nobody is compared with itself, and both arms with the same.
 */
export function compareWith(before: References, controls: readonly Device[]): Comparison {
  const ordered = [...controls].sort((a, b) => (a.dev < b.dev ? -1 : 1));
  const firsts = ordered.filter((_, i) => i % 2 === 0);
  const learned = withControls(before, firsts);
  const known = Object.entries(before.classes).filter(([, { n }]) => n >= enoughPeers);
  const { outputs, distances } = usualDistance(before.distances) === undefined ? learned : before;
  const others = { classes: { ...learned.classes, ...Object.fromEntries(known) }, outputs, distances };
  const names = new Set(firsts.map(({ dev }) => dev));
  const next = withControls(before, ordered);
  const [opened, of] = next.opens ?? [0, 0];
  return {
    judge: (device, options) => {
      const { load, ...verdicts } = judge(device, options, names.has(device.dev) ? before : others);
      // A control whose apps stay open says nothing about opening; nothing is to be said about the others then.
      return { ...verdicts, ...(load && opened >= enoughPeers && { load }) };
    },
    isEven: (guard) => guard !== 'load' || 2 * opened >= of,
    next,
  };
}

/**
 * Takes control devices into what others are compared with, until that is known well enough. How far each is from the
 * others does not depend on their order.
 */
export function withControls(references: References, devices: readonly Device[]): References {
  const { classes, outputs, distances, opens = [0, 0] } = references;
  const all: References = {
    ...references,
    classes: devices.reduce(withClass, classes),
    opens: [opens[0] + devices.filter(({ load }) => load !== '').length, opens[1] + devices.length],
  };
  if (distances.reduce((a, b) => a + b, 0) >= plentyOfPeers) return all;
  const answers = devices.map(outputsOf);
  const pooled = answers.reduce((sum, one) => combined(sum, one, 1), outputs);
  const counted = [...distances];
  for (const one of answers) {
    const distance = distanceOf(one, combined(pooled, one, -1));
    if (distance === undefined) continue;
    const at = Math.min(100, Math.floor(distance * 100));
    for (let i = counted.length; i <= at; i += 1) counted.push(0);
    counted[at] = (counted[at] ?? 0) + 1;
  }
  return { ...all, outputs: pooled, distances: counted };
}

function withClass(classes: References['classes'], device: Device): References['classes'] {
  const { cls } = device;
  const before = classes[cls];
  const hist = (before?.n ?? 0) >= plentyOfPeers ? undefined : parsed<HistogramCounts>(device.hist);
  if (hist === undefined) return classes;
  const load = parsed<HistogramCounts>(device.load);
  const all = {
    n: (before?.n ?? 0) + 1,
    hist: before ? mergeHistograms(before.hist, hist) : hist,
    mem: (before?.mem ?? 0) + device.mem,
    opened: (before?.opened ?? 0) + (load ? 1 : 0),
    ...joined(before?.load, load),
  };
  return { ...classes, [cls]: all };
}

/** Adds counts, or takes them away again. */
function combined(
  pooled: References['outputs'],
  outputs: References['outputs'],
  sign: 1 | -1,
): References['outputs'] {
  const all: Record<string, readonly number[]> = { ...pooled };
  for (const [name, counts] of Object.entries(outputs)) {
    const present = all[name];
    if (present && present.length !== counts.length) continue;
    all[name] = counts.map((count, i) => (present?.[i] ?? 0) + sign * count);
  }
  return all;
}

function joined(
  before: HistogramCounts | undefined,
  load: HistogramCounts | undefined,
): { readonly load?: HistogramCounts } {
  const all = before && load ? mergeHistograms(before, load) : (load ?? before);
  return all ? { load: all } : {};
}

function hasSoundPast({ base_n: calls, base_errors: errors }: Device): boolean {
  return calls > 0 && errors / calls < SOUND_RATE;
}

/** The largest total variation distance over the outputs that both have, as far as both have enough. */
function distanceOf(
  outputs: Readonly<Record<string, readonly number[]>>,
  pooled: References['outputs'],
): number | undefined {
  let farthest: number | undefined;
  for (const [name, counts] of Object.entries(outputs)) {
    const others = pooled[name];
    const n = counts.reduce((a, b) => a + b, 0);
    const m = others?.reduce((a, b) => a + b, 0) ?? 0;
    if (others?.length !== counts.length || n < enoughOutputs || m < enoughOutputs * enoughPeers) continue;
    const distance =
      counts.reduce((sum, count, i) => sum + Math.abs(count / n - (others[i] ?? 0) / m), 0) / 2;
    farthest = Math.max(farthest ?? 0, distance);
  }
  return farthest;
}

/** The distance that all but so many control devices kept, once there are enough of them to say. */
function usualDistance(distances: readonly number[]): number | undefined {
  const total = distances.reduce((a, b) => a + b, 0);
  if (total < enoughPeers) return undefined;
  let above = 0;
  for (let at = distances.length - 1; at >= 0; at -= 1) {
    above += distances[at] ?? 0;
    if (above > unusualShare * total) return (at + 1) / 100;
  }
  return undefined;
}

function outputsOf({ outputs }: Device): Readonly<Record<string, readonly number[]>> {
  return parsed<Readonly<Record<string, readonly number[]>>>(outputs) ?? {};
}

function parsed<Value>(text: string): Value | undefined {
  return text === '' ? undefined : (JSON.parse(text) as Value);
}
