/**
 * The report that a device sends: counts and distributions of calls, never inputs, outputs, labels or free text. It is
 * JSON, sealed once and sent as the same bytes until the server has it; `docs/protocol.md` describes it for others.
 */

/** Version of the format. */
export const REPORT_VERSION = 1;
/** Longest report after compression, bytes. */
export const MAX_REPORT_BYTES = 8192;
/** Longest request with reports, bytes; what a page sends when it is hidden is kept below {@link MAX_BEACON_BYTES}. */
export const MAX_REQUEST_BYTES = 49_152;
export const MAX_BEACON_BYTES = 16_384;
/** Most windows in one report. */
export const MAX_WINDOWS = 12;
/** Most names in `err`, `rej`, `fall` and `drop`, the last one being `other`. */
export const MAX_CODES = 9;
/** Most business events in one window. */
export const MAX_EVENTS = 8;
/** Most cells of the confusion matrix in one window. */
export const MAX_CELLS = 1024;
/** Classes of devices; see `device-class.ts`. */
export const DEVICE_CLASSES = 12;
/** Fields of windows that leave the device under full consent only. */
export const FULL_ONLY: readonly ['p', 'x', 'fb', 'biz', 'cost'] = ['p', 'x', 'fb', 'biz', 'cost'];
/** Form of the names of business events. */
export const EVENT_NAME: RegExp = /^[a-z0-9][a-z0-9_.-]{0,39}$/;
/** Sealed reports that may wait for the server: it remembers so many sequence numbers of a device. */
export const MAX_UNACKNOWLEDGED = 128;

/**
 * What the person or the app has agreed to. `unset`: nothing is stored or sent. `necessary`: versions, failures, times
 * and guard counters. `full`: feature counts, feedback and business events as well.
 */
export type Consent = 'unset' | 'necessary' | 'full';

/** Distribution as an exponential histogram: bucket `i` holds values in `(2^(i/2^s), 2^((i+1)/2^s)]`. */
export interface HistogramCounts {
  /** Scale; always 5. */
  readonly s: number;
  /** Values that are zero, negative or too small to count. */
  readonly z: number;
  readonly sum: number;
  /** Smallest and largest value; absent where there is none. */
  readonly min?: number;
  readonly max?: number;
  /** Runs of buckets: first index or distance to the next, count, distance, count … */
  readonly b: readonly number[];
}

/** What a device counted over one span of time, for one model, version and place in a rollout. */
export interface ReportWindow {
  /** When it began, seconds since 1970, a multiple of 60. */
  readonly t: number;
  /** Its length, seconds. */
  readonly d: number;
  /** Model, and the version that answered. */
  readonly m: string;
  readonly ver: string;
  /** Rollout (the plan's `id`), its stage, and the arm: `t` candidate, `c` control, or the name of an arm. */
  readonly ro?: string;
  readonly st?: number;
  readonly arm?: string;
  /** First 8 bytes of the SHA-256 of the reference profile, hex. */
  readonly prof?: string;
  /** Calls, and those that were answered. */
  readonly n: number;
  readonly ok: number;
  /** Failed calls by error code, without `ERR_INLAY_`, in lower case; eight at most, then `other`. */
  readonly err?: Readonly<Record<string, number>>;
  /** Opens of the model. */
  readonly cold?: number;
  /** Runs of the app that ended in a call. */
  readonly fatal?: number;
  /** Activations: the version began to serve here. Sent before it first runs, so that a device that dies of it is missed. */
  readonly act?: number;
  /** Local trials that ended: rejections by reason, and commits. */
  readonly rej?: Readonly<Record<string, number>>;
  readonly com?: number;
  /** Patches and compressed files that led to no release, by reason: something larger was downloaded instead. */
  readonly fall?: Readonly<Record<string, number>>;
  /** Answers from the cache, and calls that it did not have. */
  readonly ch?: readonly [hit: number, miss: number];
  /** Runs of the model; a batch is one. */
  readonly ex?: number;
  /** Seconds from call to answer, of waiting, of opening; of a shadow's runs. */
  readonly h?: Readonly<Partial<Record<'lat' | 'queue' | 'load' | 'shadow', HistogramCounts>>>;
  /** Memory in bytes (highest, mean), processor time in ms, bytes of updates received. */
  readonly g?: {
    readonly mem?: readonly [peak: number, mean: number];
    readonly cpu?: number;
    readonly net?: number;
  };
  /** Millionths of a unit of money, where the app says so. */
  readonly cost?: number;
  /** Business events: how many, and their sum. */
  readonly biz?: Readonly<Record<string, readonly [n: number, sum: number]>>;
  /** Counts of what the model gave and saw, in the order of bins of the profile; then null, then out of range. */
  readonly p?: Readonly<Record<string, readonly number[]>>;
  readonly x?: Readonly<Record<string, readonly number[]>>;
  /** Labels that came later: number, correct ones, confusion `[actual, predicted, count]`, calibration `[n, correct, Σ confidence]`. */
  readonly fb?: {
    readonly n: number;
    readonly ok: number;
    readonly cm?: readonly (readonly [actual: number, predicted: number, n: number])[];
    readonly cal?: readonly (readonly [n: number, ok: number, confidence: number])[];
  };
  /**
   * What this device did before the stage: calls, failures, 95th percentiles of calls and of opens in seconds, peak memory
   * in bytes. Frozen.
   */
  readonly bl?: {
    readonly n: number;
    readonly e: number;
    readonly p95?: number;
    readonly load?: number;
    readonly mem?: number;
  };
  /** A candidate that ran in the shadow: runs, outputs alike, outputs not alike, failures. */
  readonly sh?: readonly [n: number, alike: number, unlike: number, failed: number];
}

/** A sealed report. */
export interface Report {
  readonly v: typeof REPORT_VERSION;
  /** Channel that the device follows. */
  readonly app: string;
  /** Random name of this installation for telemetry, 12 bytes in base64url; a reset of consent draws another. */
  readonly dev: string;
  /** Random, 8 bytes in base64url: one run of one reporter. Sequence numbers count within it, from 0. */
  readonly epoch: string;
  readonly seq: number;
  /** Device's clock when it was sealed, milliseconds since 1970. */
  readonly sent: number;
  /** `inlay/<version>`, runtime, and what runs models: `webgpu`, `wasm`, `cpu` … */
  readonly sdk: string;
  readonly rt: string;
  readonly be?: string;
  /** Class of device, 0 to 11; see `device-class.ts`. */
  readonly cls: number;
  readonly consent: Exclude<Consent, 'unset'>;
  /** Share of calls whose features are counted, in (0, 1]; counts are not scaled. Default 1. */
  readonly samp?: number;
  /** Local privacy (ε) of the counts of inputs, `x`, where randomised response is on; see `response.ts`. */
  readonly eps?: number;
  /** What this device lost before it could be sent, by reason, since the last report. */
  readonly drop?: Readonly<Record<string, number>>;
  readonly win: readonly ReportWindow[];
}

/** What the server answers to reports. */
export interface ReportsAnswer {
  /** Sequence numbers that are in the database, or were before. They may be forgotten. */
  readonly done: readonly { readonly epoch: string; readonly seq: number }[];
  /** Reports that will never be taken, and why. They may be forgotten, too. */
  readonly refused: readonly { readonly epoch: string; readonly seq: number; readonly code: string }[];
  /** Seconds between reports that the server asks for, to shed load. */
  readonly next?: number;
}
