/**
 * Tables of the sync server, in types that SQLite and PostgreSQL share: `integer`/`bigint` for whole numbers (all below
 * 2^53), `double precision`, and `text`. JSON is text. Times are milliseconds since 1970 unless a name ends in `_s`.
 * Absent strings are `''`, absent numbers 0, so that unique keys hold the same everywhere.
 */

import type { Generated } from 'kysely';

/** Signed metadata. It is the truth: releases and rollouts are read from it, nothing is stored twice. */
export interface MetadataTable {
  readonly role: string;
  readonly version: number;
  /** Exactly what was signed. */
  readonly text: string;
  /** ISO 8601, UTC. */
  readonly created_at: string;
}

/** API keys. The key itself is not stored. */
export interface TokenTable {
  /** First 8 hex digits of the SHA-256: what the audit log says. */
  readonly id: string;
  /** SHA-256 of the key, lower-case hex; unique. */
  readonly sha256: string;
  readonly name: string;
  /** `admin`, `publisher`, `viewer` or `device`. */
  readonly role: string;
  /** JSON: `{ models?: string[], channels?: string[] }`; `{}` for all. */
  readonly scope: string;
  readonly created_at: number;
  /** 0 for never. */
  readonly expires_at: number;
  readonly revoked_at: number;
  /** Give or take an hour; 0 for never. */
  readonly used_at: number;
}

/** Who changed what. Rows are only ever added, each with the hash of the one before. */
export interface AuditTable {
  /** 1, 2, 3 … without gaps. */
  readonly seq: number;
  /** ISO 8601, UTC. */
  readonly at: string;
  /** Identifier of a token, subject of a bearer token, `server` or `guard`. */
  readonly actor: string;
  readonly action: string;
  /** JSON object. */
  readonly details: string;
  /** SHA-256 over the row before, hex; 64 zeros for the first. */
  readonly prev: string;
  /** SHA-256 over this row, `prev` included, hex. */
  readonly hash: string;
}

/** Which reports of a device have been counted: the highest number, and the 128 up to it. */
export interface DedupeTable {
  readonly dev: string;
  readonly epoch: string;
  readonly hi: number;
  /** 32 hex digits; bit 0 of the last digit stands for `hi`. */
  readonly seen: string;
  readonly first_at: number;
  readonly last_at: number;
  /** Numbers that left the window without a report. */
  readonly lost: number;
}

/** What counts are kept apart by. */
export interface SeriesTable {
  readonly id: Generated<number>;
  readonly app: string;
  readonly model: string;
  readonly version: string;
  readonly rollout: string;
  readonly stage: number;
  readonly arm: string;
  readonly cls: number;
}

/** Counts that were taken in and not folded yet: one row per series, time and batch. */
export interface DeltaTable {
  readonly id: Generated<number>;
  readonly series: number;
  /** Begin of the 5 minutes. */
  readonly t_s: number;
  /** JSON of an aggregate. */
  readonly body: string;
}

/** Counts by resolution: 300, 3600 and 86400 seconds; resolution 0 at time 0 is everything since the first report. */
export interface RollTable {
  readonly res: number;
  readonly series: number;
  readonly t_s: number;
  readonly body: string;
}

/** What each device runs, for the fleet's inventory. */
export interface DeviceTable {
  readonly dev: string;
  readonly model: string;
  readonly version: string;
  readonly rollout: string;
  readonly stage: number;
  readonly arm: string;
  readonly cls: number;
  readonly sdk: string;
  readonly runtime: string;
  readonly app: string;
  readonly first_at: number;
  readonly last_at: number;
  /** Begin of the last window that was counted. */
  readonly last_t_s: number;
  /** JSON: begin of the last window by series, for the latest eight; tells whether a device is new in an hour or a day. */
  readonly counted: string;
}

/** One device in one stage of one rollout: what is judged. */
export interface StageDeviceTable {
  readonly rollout: string;
  readonly stage: number;
  readonly dev: string;
  readonly arm: string;
  readonly cls: number;
  /** Of the latest report: 1 for full, 0 for what is necessary. */
  readonly consent: number;
  readonly n: number;
  readonly errors: number;
  readonly fatals: number;
  readonly rejections: number;
  readonly activations: number;
  /** Calls, failures, 95th percentiles (s) of calls and opens, and memory before the stage; frozen by the first report that has them. */
  readonly base_n: number;
  readonly base_errors: number;
  readonly base_p95: number;
  readonly base_load: number;
  readonly base_mem: number;
  readonly mem: number;
  /** JSON: {@link HistogramCounts} of times; `''` for none. */
  readonly hist: string;
  /** The same of opening the model. */
  readonly load: string;
  /** JSON: counts of outputs by hash of the profile, then name. */
  readonly outputs: string;
  /** JSON: business events by name. */
  readonly biz: string;
  readonly first_at: number;
  readonly activated_at: number;
  readonly last_at: number;
  /** Mean of the pauses between reports, milliseconds; the latest count most. 0 before the second. */
  readonly gap: number;
  /** When it was judged; 0 before. −1: only whether it went silent is; −2: all but that is. */
  readonly judged_at: number;
  /** JSON: 0 or 1 by guard; `''` until it was judged. */
  readonly verdicts: string;
}

/** Reference profiles of releases. */
export interface ProfileTable {
  readonly model: string;
  readonly version: string;
  /** First 8 bytes of the SHA-256, hex. */
  readonly hash: string;
  readonly body: string;
}

/** What a rollout is to do by itself: stages, guards, policies. The share in force is in the signed plan. */
export interface ProgrammeTable {
  /** The plan's `id`. */
  readonly rollout: string;
  readonly channel: string;
  readonly model: string;
  readonly version: string;
  /** JSON of a programme; see `guards/programme.ts`. */
  readonly body: string;
  readonly stage: number;
  /** `running`, `held`, `passed`, `failed`, `ended`. */
  readonly status: string;
  /** JSON: why, with figures. */
  readonly reason: string;
  readonly stage_at: number;
  readonly updated_at: number;
}

/** State of one guard of one stage. */
export interface GuardStateTable {
  readonly rollout: string;
  readonly stage: number;
  readonly guard: string;
  readonly body: string;
  readonly updated_at: number;
}

/** One look of the guards at a stage: inputs, evidence and decision, so that any verdict can be computed again. */
export interface GuardLookTable {
  readonly rollout: string;
  readonly stage: number;
  readonly look: number;
  readonly at: number;
  readonly decision: string;
  readonly body: string;
}

/** Rules of alerts. */
export interface AlertRuleTable {
  readonly id: string;
  readonly body: string;
  readonly enabled: number;
  readonly updated_at: number;
}

/** Alerts, present and past. */
export interface AlertTable {
  readonly fingerprint: string;
  readonly rule: string;
  /** JSON object of labels. */
  readonly labels: string;
  /** `inactive`, `pending`, `firing`, `acked`, `resolved`. */
  readonly state: string;
  /** `warning`, `critical`, `emergency`. */
  readonly level: string;
  /** JSON: value, since, acknowledged by and until, escalation step, last notification. */
  readonly body: string;
  readonly started_at: number;
  readonly updated_at: number;
}

/** What happened to alerts, for the timeline. */
export interface AlertEventTable {
  readonly id: Generated<number>;
  readonly fingerprint: string;
  readonly at: number;
  readonly kind: string;
  readonly level: string;
  readonly body: string;
}

/** Silences: alerts that match them notify nobody. */
export interface SilenceTable {
  readonly id: string;
  /** JSON object: label → value, all of which match. */
  readonly matchers: string;
  readonly from_at: number;
  readonly until_at: number;
  readonly actor: string;
  readonly comment: string;
}

/** Where notifications go. Secrets are references to the environment, never values. */
export interface ContactTable {
  readonly id: string;
  /** `webhook`, `email`, `slack`, `alertmanager`. */
  readonly kind: string;
  readonly body: string;
}

/** What is to be delivered, once per key. */
export interface OutboxTable {
  readonly id: Generated<number>;
  readonly contact: string;
  /** Unique: tells a receiver that it has had this before. */
  readonly key: string;
  readonly body: string;
  readonly attempts: number;
  readonly next_at: number;
  /** 0 until it was delivered or given up. */
  readonly done_at: number;
  readonly error: string;
}

/** Who does what only one replica may do. */
export interface LeaseTable {
  readonly name: string;
  readonly holder: string;
  readonly until_at: number;
}

/** How telemetry itself is: duplicates, too old, refused, lost, skewed … by hour; everything since the first report at 0. */
export interface HealthTable {
  readonly t_s: number;
  readonly name: string;
  readonly n: number;
}

/** Small state of jobs. */
export interface SettingTable {
  readonly name: string;
  readonly body: string;
}

/** Every table by name. */
export interface Schema {
  readonly metadata: MetadataTable;
  readonly token: TokenTable;
  readonly audit: AuditTable;
  readonly dedupe: DedupeTable;
  readonly series: SeriesTable;
  readonly delta: DeltaTable;
  readonly roll: RollTable;
  readonly device: DeviceTable;
  readonly stage_device: StageDeviceTable;
  readonly profile: ProfileTable;
  readonly programme: ProgrammeTable;
  readonly guard_state: GuardStateTable;
  readonly guard_look: GuardLookTable;
  readonly alert_rule: AlertRuleTable;
  readonly alert: AlertTable;
  readonly alert_event: AlertEventTable;
  readonly silence: SilenceTable;
  readonly contact: ContactTable;
  readonly outbox: OutboxTable;
  readonly lease: LeaseTable;
  readonly health: HealthTable;
  readonly setting: SettingTable;
}
