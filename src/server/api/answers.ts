/**
 * What the admin API answers about the fleet. The dashboard and the command line show these, and read nothing else. Times
 * are milliseconds since 1970, durations seconds. A cell with fewer devices than `kAnonymity` is `null`: it is hidden.
 */

import type { GuardName, Programme, ProgrammeStatus } from '../guards/programme.ts';
import type { SignedPlan } from '../../update/plan.ts';

/** Devices by what they run. */
export interface FleetAnswer {
  readonly at: number;
  /** Devices that reported within a day, in all. */
  readonly devices: number | null;
  readonly kAnonymity: number;
  readonly rows: readonly {
    readonly model: string;
    readonly version: string;
    readonly rollout: string;
    readonly stage: number;
    readonly arm: string;
    readonly devices: number | null;
    readonly lastAt: number;
  }[];
  readonly classes: readonly {
    readonly cls: number;
    readonly title: string;
    readonly devices: number | null;
  }[];
  readonly models: readonly string[];
}

/** What series are asked for. */
export interface SeriesQuery {
  readonly model: string;
  readonly version?: string;
  readonly rollout?: string;
  readonly from: number;
  readonly to: number;
  /** Seconds between points; chosen by the server if absent. */
  readonly step?: number;
  readonly by?: 'version' | 'arm' | 'cls' | 'none';
}

/** One line of a chart; every list has one entry per time. `null`: no data, or too few devices. */
export interface SeriesLine {
  readonly key: string;
  readonly calls: readonly (number | null)[];
  readonly devices: readonly (number | null)[];
  /** Share of failed calls, in [0, 1]. */
  readonly errorRate: readonly (number | null)[];
  /** Seconds, with anytime-valid bands around the first two where there is enough to say. */
  readonly p50: readonly (number | null)[];
  readonly p50Low: readonly (number | null)[];
  readonly p50High: readonly (number | null)[];
  readonly p95: readonly (number | null)[];
  readonly p95Low: readonly (number | null)[];
  readonly p95High: readonly (number | null)[];
  readonly p99: readonly (number | null)[];
  readonly cacheHitRate: readonly (number | null)[];
  readonly coldStarts: readonly (number | null)[];
  /** 95th percentile of opening the model, seconds. */
  readonly loadP95: readonly (number | null)[];
  /** Mean memory, bytes. */
  readonly memory: readonly (number | null)[];
  /** Units of money per call. */
  readonly cost: readonly (number | null)[];
}

/** Series over time. */
export interface SeriesAnswer {
  readonly query: SeriesQuery;
  readonly step: number;
  /** Begin of each point. */
  readonly times: readonly number[];
  readonly lines: readonly SeriesLine[];
}

/** Latency by time and bucket, for a heat map. */
export interface HeatmapAnswer {
  readonly step: number;
  readonly times: readonly number[];
  /** Upper edges, seconds, ascending. */
  readonly edges: readonly number[];
  /** `counts[time][bucket]`; `null` where there are too few devices. */
  readonly counts: readonly (readonly number[] | null)[];
}

/** Failed calls by code. */
export interface ErrorsAnswer {
  readonly rows: readonly {
    readonly version: string;
    readonly code: string;
    readonly calls: number | null;
    readonly share: number | null;
  }[];
}

/** Evidence of one guard. */
export interface GuardEvidence {
  readonly guard: GuardName | 'tripwire' | 'sample-ratio';
  readonly required: boolean;
  /** Natural logarithms of the e-values and of what they have to reach. */
  readonly logEFail: number;
  readonly failAt: number;
  readonly logEPass: number;
  readonly passAt: number;
  readonly verdict: 'open' | 'fail' | 'pass' | 'hold';
  /** Judged devices and bad ones. */
  readonly treated: { readonly judged: number; readonly bad: number };
  readonly control: { readonly judged: number; readonly bad: number };
  /** Observed ratio of the rates, smoothed. */
  readonly ratio: number | null;
  /** Treated devices that are still needed for a verdict at the present rates; `null` if that cannot be said. */
  readonly devicesLeft: number | null;
  /** One sentence for people. */
  readonly text: string;
  /** Evidence by look, oldest first, for a chart. */
  readonly history: readonly { readonly at: number; readonly fail: number; readonly pass: number }[];
}

/** A rollout, with what is known of it. */
export interface RolloutEvidence {
  readonly channel: string;
  readonly plan: SignedPlan;
  readonly programme: Programme | null;
  readonly status: ProgrammeStatus | 'manual';
  readonly stage: number;
  readonly stageAt: number;
  /** Why it stands where it stands: one sentence. */
  readonly reason: string;
  readonly devices: {
    /** Devices that have the candidate, control devices, and those that went silent. */
    readonly exposed: number;
    readonly control: number;
    readonly silent: number;
  };
  readonly guards: readonly GuardEvidence[];
  readonly arms: readonly {
    readonly arm: string;
    readonly version: string;
    readonly weightBp: number;
    readonly devices: number | null;
    readonly reward: number | null;
    /** Against the candidate, in an A/B test: logarithms of the evidence that they differ, and of what it has to reach. */
    readonly comparison: {
      readonly verdict: 'better' | 'worse' | 'open';
      readonly logE: number;
      readonly at: number;
      readonly text: string;
    } | null;
  }[];
  readonly shadow: {
    readonly n: number;
    readonly alike: number;
    readonly unlike: number;
    readonly failed: number;
  } | null;
}

/** What came out of computing the verdicts of a rollout again. */
export interface VerificationAnswer {
  /** By stage of the plan; `broken` are the numbers, from 1, of looks that do not follow from what was seen. */
  readonly stages: readonly {
    readonly stage: number;
    readonly looks: number;
    readonly broken: readonly number[];
  }[];
}

/** What a stage can detect; printed before anyone starts it. */
export interface StagePower {
  readonly bp: number;
  readonly treated: number;
  readonly control: number;
  readonly rows: readonly {
    readonly guard: GuardName;
    /** Share of bad devices that is assumed for the base. */
    readonly baseRate: number;
    readonly ratio: number;
    /** Treated devices to a verdict: median and 90th percentile. */
    readonly median: number;
    readonly p90: number;
    readonly detectable: boolean;
  }[];
  /** Smallest ratio of bad devices that the stage finds with 90 %. */
  readonly smallest: number | null;
  readonly text: string;
}

/** Drift of one feature. */
export interface DriftRow {
  readonly model: string;
  readonly version: string;
  readonly feature: string;
  readonly kind: 'input' | 'output';
  readonly against: 'training' | 'rolling';
  readonly n: number;
  readonly devices: number;
  /** Present where there is enough data; see the reference for each. */
  readonly psi: number | null;
  readonly psiAt: number | null;
  readonly chi2P: number | null;
  readonly ks: number | null;
  readonly ksP: number | null;
  /** Jensen-Shannon distance, base 2. */
  readonly js: number | null;
  /** Wasserstein-1 over the standard deviation of the reference. */
  readonly w1: number | null;
  readonly verdict: 'none' | 'warning' | 'critical' | 'too-few';
  /** Labels of the bins, and shares of the reference and of now, for bars. */
  readonly bins: readonly string[];
  readonly reference: readonly number[];
  readonly current: readonly number[];
  /** PSI by day, oldest first. */
  readonly history: readonly (number | null)[];
}

/** Drift, and what labels say. */
export interface DriftAnswer {
  readonly rows: readonly DriftRow[];
  readonly concept: readonly {
    readonly model: string;
    readonly version: string;
    readonly labelled: number;
    readonly coverage: number | null;
    readonly accuracy: number | null;
    readonly reference: number | null;
    readonly logE: number | null;
    readonly calibration: readonly (readonly [number, number, number])[];
  }[];
}

/** Alerts, and what happened to them. */
export interface AlertsAnswer {
  readonly alerts: readonly {
    readonly fingerprint: string;
    readonly rule: string;
    readonly labels: Readonly<Record<string, string>>;
    readonly state: string;
    readonly level: string;
    readonly value: number | null;
    readonly text: string;
    readonly startedAt: number;
    readonly updatedAt: number;
    readonly ackedBy: string | null;
    readonly runbook: string | null;
  }[];
  readonly events: readonly {
    readonly at: number;
    readonly fingerprint: string;
    readonly rule: string;
    readonly kind: string;
    readonly level: string;
    readonly text: string;
  }[];
}

/** How telemetry itself is. */
export interface TelemetryHealthAnswer {
  readonly hours: readonly number[];
  /** By name: `reports`, `windows`, `duplicates`, `too_old`, `refused`, `lost`, `skewed`, `dropped`, `busy`. */
  readonly counts: Readonly<Record<string, readonly number[]>>;
  readonly consent: Readonly<Record<string, number | null>>;
  /** Lost reports as a share of those that were sealed, last day. */
  readonly lossRate: number | null;
}

/** The audit log. */
export interface AuditAnswer {
  readonly records: readonly {
    readonly seq: number;
    readonly at: string;
    readonly actor: string;
    readonly action: string;
    readonly details: Readonly<Record<string, unknown>>;
    readonly hash: string;
  }[];
  /** Whether the chain of hashes holds from the first record to the last. */
  readonly intact: boolean;
}
