/**
 * The rollout plan: which version each bucket of devices runs. It travels in the `custom` field of the target
 * `rollout/<channel>.json` that the online `rollout` role signs; it can only name files that the offline `targets`
 * role lists. Numbers are integers, since signed JSON has no others.
 */

/** A release that a plan names. It counts only if path, hash and length equal the entry in `targets`. */
export interface PlanEntry {
  /** Target path, `models/<model>/<seq>/<file>`. */
  readonly path: string;
  /** Lower-case hex. */
  readonly sha256: string;
  /** Bytes. */
  readonly length: number;
  readonly seq: number;
  readonly version: string;
}

/**
 * Where a rollout stands. `ramp`: devices below `bp` take the candidate. `paused`: no further device begins. `halted`:
 * nor does any go on that is still on trial; those that committed it keep it. `rolledback`: no device runs the
 * candidate. `complete`: all do.
 */
export type PlanState = 'ramp' | 'paused' | 'halted' | 'rolledback' | 'complete';

/** What a device must be to take part; every field that is there has to hold. Evaluated on the device, never sent. */
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

/** One rollout of one model in one channel, with every default filled in. */
export interface Plan {
  /** Identifier of this rollout; a new candidate starts a new one. */
  readonly id: string;
  readonly model: string;
  readonly state: PlanState;
  /** 16 hex digits, random per rollout; never changes within one. */
  readonly salt: string;
  /** Share at which this stage began, basis points. Default: `bp`. */
  readonly fromBp: number;
  /** Share of devices that run `cand`, basis points in [0, 10000]. Only rises within one rollout. */
  readonly bp: number;
  /** When this stage begins, `YYYY-MM-DDTHH:MM:SSZ`. Default: at once. */
  readonly startAt: string | undefined;
  /** Seconds over which the devices between `fromBp` and `bp` begin, one bucket after the other. Default 0: at once. */
  readonly durationS: number;
  /** Share that is measured on the base, basis points, taken from the top. Default min(9 · bp, 10000 − bp). */
  readonly ctl: number;
  /** What the other devices run; `null` before the first release. */
  readonly base: PlanEntry | null;
  readonly cand: PlanEntry;
  /** One of them has to hold. Default: none, which every device meets. */
  readonly rules: readonly Rule[];
  /** Devices that take part whatever rules and bucket say, as `unitHash` names them; 500 at most. */
  readonly allow: readonly string[];
  /** Devices that do not. They go before `allow`. */
  readonly deny: readonly string[];
  /** What is placed in buckets: `install`, or the name of an attribute, so that all devices of a site go together. */
  readonly bucketBy: string;
  readonly trial: TrialRules;
  readonly net: NetworkRules;
  /** Seconds between two polls that this rollout asks for. Default: the app's own. */
  readonly pollS: number | undefined;
  /** Seconds for which a plan counts for devices on trial; 0 for ever. Without a newer one they go back. Default 0. */
  readonly leaseS: number;
  /** A higher one lets devices try again that rejected the candidate. Default 0. */
  readonly retryNonce: number;
}

/**
 * A plan as it is signed: what is at its default is left out. `poll: { T }` and `startAt` are as in the docs of the
 * wire protocol.
 */
export type SignedPlan = Pick<Plan, 'id' | 'model' | 'state' | 'salt' | 'bp' | 'base' | 'cand'> &
  Partial<Omit<Plan, 'trial' | 'net'>> & {
    readonly trial?: Partial<TrialRules>;
    readonly net?: Partial<NetworkRules>;
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
