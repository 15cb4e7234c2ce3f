/**
 * The rollout plan: which version each bucket of devices runs. It travels in the `custom` field of the target
 * `rollout/<channel>.json` that the online `rollout` role signs; it can only name files that the offline `targets`
 * role lists. Numbers are integers, since signed JSON has no others.
 */

import { isFields, isSize, isTime, type Fields } from '../trust/parse.ts';
import { readArms, type PlanArm } from './arms.ts';
import { readEntry, type PlanEntry } from './plan-entry.ts';
import { isRange } from './rules.ts';

export type { PlanArm, PlanEntry };

/**
 * Where a rollout stands. `ramp`: devices below `bp` take the candidate. `paused`: no further device begins. `halted`:
 * nor does any go on that is still on trial; those that committed it keep it. `rolledback`: no device runs the
 * candidate. `complete`: all do.
 */
export type PlanState = 'ramp' | 'paused' | 'halted' | 'rolledback' | 'complete';

/**
 * What a device must be to take part; every field that is there has to hold. Evaluated on the device, never sent. A rule
 * with a field that a device does not know does not hold there.
 */
export interface Rule {
  /** `linux`, `macos`, `windows`, `android`, `ios`. */
  readonly os?: readonly string[];
  /** `x64`, `arm64` … */
  readonly arch?: readonly string[];
  /** `node`, `browser`, `react-native` … */
  readonly runtime?: readonly string[];
  readonly minMemoryMiB?: number;
  /** Versions of the app: comparisons of `major.minor.patch` that all hold, such as `>=3.2.0 <4.0.0`. */
  readonly app?: string;
  /** Versions of Inlay, in the same form. */
  readonly sdk?: string;
  /** BCP 47 tags; `de` covers `de-AT`. */
  readonly locale?: readonly string[];
  /** What the app says about itself, by name: one of the values. */
  readonly attributes?: Readonly<Record<string, readonly string[]>>;
}

/** How a device finds out whether a release works on it. */
export interface TrialRules {
  /** Answered calls before it is committed. Default 20. */
  readonly minInferences: number;
  /** Seconds of service before it is committed. Default 60. */
  readonly soakS: number;
  /** Failed starts in a row after which it is rejected. Default 2. */
  readonly strikes: number;
  /** Seconds that it may take to open and to answer for the first time. Default 20. */
  readonly loadTimeoutS: number;
  /** Failing calls that are tolerated, basis points of all. Default 200. */
  readonly maxErrorBp: number;
  /** 95th percentile of the run time against that of the version before, per cent. Default 200. */
  readonly maxP95Percent: number;
  /** Bytes of memory that it may take more than the version before, MiB; 0 for no limit. Default 0. */
  readonly maxMemoryMiB: number;
  /** A process that dies so soon after the first answer died of it, seconds. Default 10. */
  readonly graceS: number;
}

/** When a device may download. */
export interface NetworkRules {
  /** Only over connections that cost nothing per byte. */
  readonly unmetered: boolean;
  readonly charging: boolean;
  readonly idle: boolean;
}

/**
 * Devices that fetch the candidate and run it beside what answers, with samples of the same calls. Nobody gets what it
 * gives; whether that is alike is counted.
 */
export interface ShadowRules {
  /** Buckets below it that do not run the candidate or an arm; above the plan's share. */
  readonly bp: number;
  /** Share of their calls, basis points; 0: the file is brought, and waits. */
  readonly sampleBp: number;
}

/** What this rollout asks of telemetry. */
export interface ReportRules {
  /** Seconds between two reports, in [60, 604800]. */
  readonly everyS: number;
  /** Whether a device reports at once what comes first: that the release began, or did not work. Default true. */
  readonly first: boolean;
}

/** One rollout of one model in one channel, with every default filled in. */
export interface Plan {
  /** Identifier of this rollout; a new candidate starts a new one. */
  readonly id: string;
  readonly model: string;
  readonly state: PlanState;
  /** Stage of the rollout, from 0 on; only rises. Together with `id` it says what reports count for. Default 0. */
  readonly stage: number;
  /** Whether no other release may take the place of this one until that is taken back. Default false. */
  readonly pinned: boolean;
  /** 16 hex digits, random per rollout; never changes within one. */
  readonly salt: string;
  /** Share at which this stage began, basis points. Default: `bp`. */
  readonly fromBp: number;
  /** Share of devices that run `cand`, basis points in [0, 10000]. Only rises within one rollout; 10000 if `complete`. */
  readonly bp: number;
  /**
   * When this stage begins, `YYYY-MM-DDTHH:MM:SSZ`. Default: at once. Devices below `fromBp` do not wait for it, unless
   * `fromBp` is `bp`: then the whole share begins at this time.
   */
  readonly startAt: string | undefined;
  /**
   * Seconds over which the devices between `fromBp` and `bp` begin, one bucket after the other. Default 0: at once. Needs
   * `startAt`.
   */
  readonly durationS: number;
  /** Share that is measured on the base, basis points, taken from the top. Default min(9 · bp, 10000 − bp). */
  readonly ctl: number;
  /** What the other devices run; `null` before the first release. */
  readonly base: PlanEntry | null;
  readonly cand: PlanEntry;
  /**
   * Further arms, 8 at most; none if `complete`. Within one rollout none goes away, gets another release, or loses or wins
   * a bucket below the share. Default: none.
   */
  readonly arms: readonly PlanArm[];
  /** Default: nobody runs the candidate in the shadow. */
  readonly shadow: ShadowRules | undefined;
  /**
   * One of them has to hold; 32 at most. Default: none, which every device meets. They may change within a rollout: who
   * has begun stays in, so that they only choose among those that have not.
   */
  readonly rules: readonly Rule[];
  /**
   * Devices that take part whatever rules and bucket say, as `unitHash` names their install identifier or their value of
   * `bucketBy`; 500 at most.
   */
  readonly allow: readonly string[];
  /** Devices that do not. They go before `allow`. */
  readonly deny: readonly string[];
  /** What is placed in buckets: `install`, or the name of an attribute, so that all devices of a site go together. */
  readonly bucketBy: string;
  readonly trial: TrialRules;
  readonly net: NetworkRules;
  /** Seconds between two polls that this rollout asks for. Default: the app's own. */
  readonly pollS: number | undefined;
  /** Default: the app's own. */
  readonly report: ReportRules | undefined;
  /** Seconds for which a plan counts for devices on trial; 0 for ever. Without a newer one they go back. Default 0. */
  readonly leaseS: number;
  /** A higher one lets devices try again that rejected the candidate. Default 0. */
  readonly retryNonce: number;
}

/** A plan as it is signed: what is at its default is left out. {@link readPlan} fills it in. */
export type SignedPlan = Pick<Plan, 'id' | 'model' | 'state' | 'salt' | 'bp' | 'base' | 'cand'> &
  Partial<Omit<Plan, 'trial' | 'net' | 'report'>> & {
    readonly trial?: Partial<TrialRules>;
    readonly net?: Partial<NetworkRules>;
    readonly report?: (Pick<ReportRules, 'everyS'> & Partial<ReportRules>) | undefined;
  };

/** Content of a rollout target's `custom`. */
export interface RolloutPlans {
  readonly v: 1;
  /** At most one plan per model. */
  readonly plans: readonly SignedPlan[];
}

/** What a device is, for rules and buckets. Nothing of it leaves the device by this. */
export interface Install {
  /** Random identifier of this installation, 32 hex digits. */
  readonly id: string;
  readonly runtime: string;
  /** Version of Inlay. */
  readonly sdk: string;
  readonly os?: string;
  readonly arch?: string;
  readonly memoryMiB?: number;
  /** Version of the app, where it says so. */
  readonly app?: string;
  readonly locale?: string;
  readonly attributes?: Readonly<Record<string, string>>;
}

/** The rules of a trial where a plan says nothing else. */
export const DEFAULT_TRIAL: TrialRules = {
  minInferences: 20,
  soakS: 60,
  strikes: 2,
  loadTimeoutS: 20,
  maxErrorBp: 200,
  maxP95Percent: 200,
  maxMemoryMiB: 0,
  graceS: 10,
};

const states: readonly PlanState[] = ['ramp', 'paused', 'halted', 'rolledback', 'complete'];
/** Parts of a whole that shares are given in. */
const whole = 10_000;
/** Seconds of a year of 365 days: no time span in a plan is longer. */
const yearS = 31_536_000;
/** Seconds of a week: a longer period between polls would be a way to keep devices from hearing of anything. */
const weekS = 604_800;
const longestList = 500;
const mostRules = 32;
/** Values in one condition of a rule. */
const mostValues = 64;

/** Lowest and highest value of each number of a trial. */
const trialRanges: Readonly<Record<keyof TrialRules, readonly [number, number]>> = {
  minInferences: [0, 1_000_000_000],
  soakS: [0, yearS],
  strikes: [1, 100],
  loadTimeoutS: [1, 3600],
  maxErrorBp: [0, whole],
  maxP95Percent: [1, 1_000_000],
  maxMemoryMiB: [0, 2 ** 31],
  graceS: [0, 3600],
};

/** What the known conditions of a rule look like; others stay, and hold nowhere. */
const ruleForms: Readonly<Record<keyof Rule, (value: unknown) => boolean>> = {
  os: isNames,
  arch: isNames,
  runtime: isNames,
  minMemoryMiB: isSize,
  app: isRangeText,
  sdk: isRangeText,
  locale: isNames,
  attributes: (value) => isFields(value) && Object.values(value).every(isNames),
};

/**
 * Reads a plan as it travels, and fills its defaults in. Fields that are not known are ignored; a known one that is out
 * of its range spoils the plan. Whether the plan may be believed is for `resolvePlan` to say.
 * @returns `undefined` if it is malformed.
 */
export function readPlan(value: unknown): Plan | undefined {
  if (!isFields(value)) return undefined;
  const { id, model, state, salt, bp, stage = 0, pinned = false, arms: given = [] } = value;
  const named = isMatch(id, /^[!-~]{1,128}$/) && isMatch(model, /^[a-z0-9][a-z0-9._-]{0,127}$/);
  if (!named || !isState(state) || !isMatch(salt, /^[0-9a-f]{16}$/) || !isNumber(bp, 0, whole))
    return undefined;
  if (!isSize(stage) || typeof pinned !== 'boolean') return undefined;
  const base = value['base'] === null ? null : readEntry(value['base']);
  const cand = readEntry(value['cand']);
  const arms = readArms(given, bp);
  if (base === undefined || cand === undefined || arms === undefined) return undefined;
  if (state === 'complete' && (bp !== whole || arms.length > 0)) return undefined;
  const { fromBp = bp, startAt, durationS = 0, ctl = Math.min(9 * bp, whole - bp) } = value;
  if (!isNumber(fromBp, 0, bp) || !isNumber(durationS, 0, yearS) || !isNumber(ctl, 0, whole))
    return undefined;
  if (startAt !== undefined && !isTime(startAt)) return undefined;
  if (startAt === undefined && durationS > 0) return undefined;
  const { rules = [], allow = [], deny = [], bucketBy = 'install' } = value;
  if (!isRules(rules) || !isUnits(allow) || !isUnits(deny) || !isMatch(bucketBy, /^.{1,64}$/su))
    return undefined;
  const { pollS, leaseS = 0, retryNonce = 0 } = value;
  if (pollS !== undefined && !isNumber(pollS, 1, weekS)) return undefined;
  if (!isNumber(leaseS, 0, yearS) || !isSize(retryNonce)) return undefined;
  const trial = readTrial(value['trial']);
  const net = readNetwork(value['net']);
  const shadow = readShadow(value['shadow'], bp);
  const report = readReport(value['report']);
  if (!trial || !net || shadow === null || report === null) return undefined;
  const share = { fromBp, bp, startAt, durationS, ctl };
  const releases = { base, cand, arms, shadow };
  const devices = { rules, allow, deny, bucketBy };
  const reach = { pollS, report, leaseS, retryNonce };
  return { id, model, state, stage, pinned, salt, ...share, ...releases, ...devices, trial, net, ...reach };
}

/** @returns `null` if it is malformed. */
function readShadow(value: unknown, share: number): ShadowRules | undefined | null {
  if (value === undefined) return undefined;
  if (!isFields(value)) return null;
  const { bp, sampleBp } = value;
  return isNumber(bp, share + 1, whole) && isNumber(sampleBp, 0, whole) ? { bp, sampleBp } : null;
}

/** @returns `null` if it is malformed. */
function readReport(value: unknown): ReportRules | undefined | null {
  if (value === undefined) return undefined;
  if (!isFields(value)) return null;
  const { everyS, first = true } = value;
  return isNumber(everyS, 60, weekS) && typeof first === 'boolean' ? { everyS, first } : null;
}

function readTrial(value: unknown = {}): TrialRules | undefined {
  if (!isFields(value)) return undefined;
  const trial: Record<keyof TrialRules, number> = { ...DEFAULT_TRIAL };
  for (const name of Object.keys(trialRanges) as (keyof TrialRules)[]) {
    const given = value[name];
    if (given === undefined) continue;
    if (!isNumber(given, ...trialRanges[name])) return undefined;
    trial[name] = given;
  }
  return trial;
}

function readNetwork(value: unknown = {}): NetworkRules | undefined {
  if (!isFields(value)) return undefined;
  const { unmetered = false, charging = false, idle = false } = value;
  if (typeof unmetered !== 'boolean' || typeof charging !== 'boolean' || typeof idle !== 'boolean')
    return undefined;
  return { unmetered, charging, idle };
}

function isState(value: unknown): value is PlanState {
  return states.some((state) => state === value);
}

function isMatch(value: unknown, form: RegExp): value is string {
  return typeof value === 'string' && form.test(value);
}

function isNumber(value: unknown, lowest: number, highest: number): value is number {
  return isSize(value) && value >= lowest && value <= highest;
}

function isUnits(value: unknown): value is readonly string[] {
  return (
    Array.isArray(value) &&
    value.length <= longestList &&
    value.every((name) => isMatch(name, /^[0-9a-f]{32}$/))
  );
}

function isRules(value: unknown): value is readonly Rule[] {
  return (
    Array.isArray(value) && value.length <= mostRules && value.every((rule) => isFields(rule) && isRule(rule))
  );
}

function isRule(rule: Fields): rule is Fields & Rule {
  return Object.entries(ruleForms).every(([name, isForm]) => rule[name] === undefined || isForm(rule[name]));
}

function isNames(value: unknown): boolean {
  return (
    Array.isArray(value) && value.length <= mostValues && value.every((name) => typeof name === 'string')
  );
}

function isRangeText(value: unknown): boolean {
  return typeof value === 'string' && isRange(value);
}
