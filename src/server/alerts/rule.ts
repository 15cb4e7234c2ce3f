/** Rules of alerts: JSON that people write; read by `rule-reader.ts`. */

/** How bad it is, the worst last. */
export const LEVELS = ['warning', 'critical', 'emergency'] as const;
/** One of {@link LEVELS}. */
export type Level = (typeof LEVELS)[number];

/** What is measured of calls, over a span of time. */
export const SIGNALS = [
  'errorRate',
  'p50',
  'p95',
  'p99',
  'loadP95',
  'fatal',
  'calls',
  'devices',
  'cacheMissRate',
  'memory',
] as const;
/** One of {@link SIGNALS}: shares in [0, 1], seconds, bytes, or counts. */
export type Signal = (typeof SIGNALS)[number];

/** Measures and what each has to reach, all of them; a bare number is for the measure `value`. */
export type Clause = number | Readonly<Record<string, number>>;

/** What is looked at; `kind` says which measures there are. Spans are in seconds, multiples of 300. */
export type Condition =
  /** `value`: the signal; `share`: fatal ends by devices. With `below`, thresholds are reached from above. */
  | { readonly kind: 'threshold'; readonly signal: Signal; readonly windowS: number; readonly below: boolean }
  /** `value`, and `ratio`: to the same signal of the model over the days before the window. */
  | {
      readonly kind: 'ratio';
      readonly signal: Signal;
      readonly windowS: number;
      /** Default 7. */
      readonly baselineDays: number;
      readonly below: boolean;
    }
  /** `value`: seconds without a report of a model that devices reported on. */
  | { readonly kind: 'absence' }
  /** `value`: 1 for a warning on any feature, 2 for a critical verdict; `psi`: the largest; `share`: of features that drift. */
  | { readonly kind: 'drift'; readonly against: 'training' | 'rolling'; readonly windowS: number }
  /** Levels come from the windows: failed calls are so many times what the objective allows, in both of the spans. */
  | {
      readonly kind: 'burn-rate';
      /** Share of calls that are to be answered, in (0, 1). */
      readonly objective: number;
      readonly windows: readonly {
        readonly longS: number;
        readonly shortS: number;
        readonly factor: number;
        readonly level: Level;
      }[];
    }
  /** `value`: how far below the reference the accuracy is at least, at 95 %, by all labels of the window. */
  | { readonly kind: 'accuracy'; readonly windowS: number }
  /** `failed`, `held`: 1 for a rollout that the guards stopped, or that waits for a person, in the last day. */
  | { readonly kind: 'guard' }
  /** `value`: share of reports that were lost; `skew`: share with a wrong clock; `silentArms`: arms without reports. */
  | { readonly kind: 'loss'; readonly windowS: number };

/** Times of the week; a span that ends before it begins ends on the next day. */
export interface WeekSpan {
  /** 1 for Monday to 7 for Sunday (ISO 8601), of the day on which it begins. */
  readonly days: readonly number[];
  /** `HH:MM`. */
  readonly from: string;
  readonly to: string;
}

/** When a rule may notify. */
export interface Schedule {
  /** Name of a time zone, such as `Europe/Berlin`. Default `UTC`. */
  readonly tz: string;
  /** In these spans only; none for always. */
  readonly active: readonly WeekSpan[];
  /** Not in these; emergencies are told all the same. */
  readonly mute: readonly WeekSpan[];
}

/** Labels that can tell alerts of one rule apart. */
export type GroupLabel = 'channel' | 'model' | 'version' | 'cls';

/** A rule, with its defaults filled in. */
export interface AlertRule {
  /** 1 to 64 characters of `a-z 0-9 . _ -`. */
  readonly id: string;
  readonly v: 1;
  readonly title: string;
  /** What it looks at; absent for everything. */
  readonly scope: {
    readonly channel?: string | undefined;
    readonly model?: string | undefined;
    readonly version?: string | undefined;
    readonly cls?: number | undefined;
  };
  readonly cond: Condition;
  /** How long it has to hold before anybody is told, seconds. Default 0. */
  readonly forS: number;
  /** Fewer devices or calls than this are no data. */
  readonly min: { readonly devices: number; readonly n: number };
  /** Thresholds by level; of several clauses one must hold. */
  readonly levels: { readonly [Name in Level]?: Clause | readonly Clause[] | undefined };
  /** A level ends when its thresholds, times `ratio`, are not reached for `forS` seconds. Default 0.9 and 300. */
  readonly clear: { readonly ratio: number; readonly forS: number };
  /** One alert for each combination of these. Default model and version. */
  readonly by: readonly GroupLabel[];
  /** Alerts that agree in these labels travel in one notification. Default model. */
  readonly groupBy: readonly string[];
  /** Says nothing while a graver alert, or an equally grave and older one, of at least this level fires that agrees in `same`. */
  readonly inhibitedBy: readonly {
    readonly level: Level;
    readonly same: readonly string[];
    readonly rule?: string | undefined;
  }[];
  readonly schedule?: Schedule | undefined;
  /** Contacts, and the levels that they hear of. Absent: every contact that takes what has no route. */
  readonly route?:
    | readonly { readonly contact: string; readonly levels?: readonly Level[] | undefined }[]
    | undefined;
  /** Further contacts after a time, unless somebody acknowledged it (with `resolved`: unless it has ended). */
  readonly escalate: readonly {
    readonly afterS: number;
    readonly unless: 'acked' | 'resolved';
    readonly to: string;
  }[];
  /** Seconds until those who were told are told again, while nobody acknowledges it. Default 4 hours. */
  readonly repeatS: number;
  readonly runbook?: string | undefined;
  /** Takes the rollouts of the model back when an emergency begins. Default false. */
  readonly rollback: boolean;
  /** Contact that gets the figures when drift begins, so that it may start a training. */
  readonly retrain?: string | undefined;
}

type Draft<Value> = Value extends readonly (infer Item)[]
  ? readonly Draft<Item>[]
  : Value extends object
    ? { readonly [Name in keyof Value]?: Draft<Value[Name]> }
    : Value;

/** A rule as it may be written: what has a default may be absent. */
export type AlertRuleDraft = Draft<AlertRule>;
