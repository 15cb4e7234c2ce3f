/** Counts of one series over one span of time. They add, field by field, whatever the order. */

import type { HistogramCounts } from '../../telemetry/report.ts';

/** The body of a row in `delta` and `roll`. Absent is zero. */
export interface Aggregate {
  /** Calls, answered ones, failed ones by code. */
  readonly n: number;
  readonly ok: number;
  readonly err?: Readonly<Record<string, number>>;
  /** Devices that are counted for the first time in these 5 minutes, this hour, this day (UTC). */
  readonly dev: readonly [fiveMinutes: number, hour: number, day: number];
  readonly cold?: number;
  readonly fatal?: number;
  readonly act?: number;
  readonly com?: number;
  readonly rej?: Readonly<Record<string, number>>;
  readonly fall?: Readonly<Record<string, number>>;
  readonly hit?: number;
  readonly miss?: number;
  readonly ex?: number;
  readonly h?: Readonly<Partial<Record<'lat' | 'queue' | 'load' | 'shadow', HistogramCounts>>>;
  /** Highest memory, sum of means and their number, bytes; processor time in ms; bytes received. */
  readonly mem?: readonly [peak: number, sum: number, n: number];
  readonly cpu?: number;
  readonly net?: number;
  readonly cost?: number;
  readonly biz?: Readonly<Record<string, readonly [n: number, sum: number]>>;
  /** Counts by profile hash, then feature: outputs, inputs. What a device did not have the profile for is under `''`. */
  readonly p?: Readonly<Record<string, Readonly<Record<string, readonly number[]>>>>;
  readonly x?: Readonly<Record<string, Readonly<Record<string, readonly number[]>>>>;
  readonly fb?: {
    readonly n: number;
    readonly ok: number;
    /** `actual,predicted` → count. */
    readonly cm?: Readonly<Record<string, number>>;
    readonly cal?: readonly (readonly [number, number, number])[];
  };
  readonly sh?: readonly [n: number, alike: number, unlike: number, failed: number];
}
