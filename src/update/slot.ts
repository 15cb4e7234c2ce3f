/** The slots of one model on one device: what it runs, what it can go back to, what it tries. */

import type { ModelPolicy } from '../trust/metadata.ts';
import type { FileContent, FileRef, GoldenTolerance } from './manifest.ts';
import type { PlanEntry, TrialRules } from './plan.ts';

/** The slots, in the order in which they are tried. */
export const slotNames = ['trial', 'committed', 'previous', 'embedded'] as const;

/** Names of the slots. */
export type SlotName = (typeof slotNames)[number];

/** A release in a slot. */
export interface Slot {
  readonly release: PlanEntry;
  /** The file that runs: the release's own, or one of its variants. */
  readonly file: { readonly sha256: string; readonly length: number };
  /** Name of the variant, where the release has several. */
  readonly variant?: string;
  /**
   * SHA-256 of the signed `targets` that listed the file, which is in the store as well: what proves at each start that
   * it was signed, also when newer targets list it no more. Absent for what came with the app.
   */
  readonly proof?: string;
  /** The golden inputs, which are in the store as well. */
  readonly golden?: FileRef & { readonly tolerance: GoldenTolerance };
  /** The reference profile of the release, for telemetry; it need not be in the store. */
  readonly profile?: FileRef;
  /** The file that patches of releases to come start from, where the manifest names one; it need not be in the store. */
  readonly anchor?: FileContent;
}

/** A release that proves itself. Its file is verified and in the store. */
export interface Trial extends Slot {
  /** The rollout that brought it. */
  readonly plan: string;
  /** How it proves itself: what the rollout said when it was staged. */
  readonly rules: TrialRules;
  /** That of the rollout: a rejection holds until it is higher. */
  readonly retryNonce: number;
  /** `staged`: waits for its activation. `active`: has answered. */
  readonly phase: 'staged' | 'active';
  /** When it first answered, milliseconds since 1970; absent while staged. */
  readonly since?: number;
  /** Answered and failed calls so far. */
  readonly inferences: number;
  readonly errors: number;
}

/** Why a release is not run. The words are part of the telemetry and never change their meaning. */
export const rejectReasons = [
  'hash',
  'open',
  'signature',
  'golden',
  'crash',
  'hang',
  'memory',
  'errors',
  'invalid-outputs',
  'latency',
  'too-large',
  'incompatible',
] as const;

/** One of the reasons for which a release is not run. */
export type RejectReason = (typeof rejectReasons)[number];

/** A release that did not prove itself here. It is offered again when one of the conditions has changed. */
export interface Rejected {
  readonly sha256: string;
  readonly version: string;
  readonly seq: number;
  readonly reason: RejectReason;
  /** For people: the message of the error. */
  readonly detail: string;
  readonly at: number;
  /** Rejections in a row: after the first it counts for 24 hours, after the second for 72, then until something changes. */
  readonly count: number;
  /** Milliseconds since 1970; `null`: until `retryNonce`, Inlay or the app changes. */
  readonly until: number | null;
  readonly retryNonce: number;
  readonly sdk: string;
  readonly app?: string;
}

/** What one run of the app does with one release, written before it is done. */
export interface Marker {
  /** Random, so that two loads of one release in one run are told apart. */
  readonly id: string;
  /** `Platform.instance.id`, or a random identifier. */
  readonly run: string;
  readonly sha256: string;
  readonly slot: SlotName;
  /** `loading` from before it is opened until the first good answer; `running` from then until it is closed. */
  readonly phase: 'loading' | 'running';
  /** When this phase began, milliseconds since 1970. */
  readonly at: number;
  /** It has outlived the grace period: how the run ends says nothing of the release any more. */
  readonly isSettled?: boolean;
}

/** The part of a plan that a device remembers: who takes part stays in. */
export interface SeenPlan {
  readonly id: string;
  /** Highest share seen. */
  readonly bp: number;
  readonly salt: string;
  /** SHA-256 of the candidate. */
  readonly cand: string;
  /** Whether this device began with the candidate: then it stays with it, also if a rule stops to hold. */
  readonly isIn: boolean;
  /** The arm that this device began in, which it keeps; absent before, and in the records of earlier versions of Inlay. */
  readonly arm?: { readonly name: string; /** Of its release. */ readonly sha256: string };
  /** The plan's own: rejections remember it. Absent: 0. */
  readonly retryNonce?: number;
  /** When metadata with this plan was last verified or confirmed, milliseconds since 1970. */
  readonly verifiedAt: number;
}

/** All that is remembered of one model. */
export interface SlotsState {
  readonly embedded?: Slot;
  readonly committed?: Slot;
  readonly previous?: Slot;
  readonly trial?: Trial;
  readonly rejected: readonly Rejected[];
  readonly markers: readonly Marker[];
  /** Failed starts in a row by SHA-256 of the file. */
  readonly strikes: Readonly<Record<string, number>>;
  readonly plan?: SeenPlan;
  /** Releases that must not run, as far as signed metadata has ever said: a start without network knows it, too. */
  readonly policy?: ModelPolicy;
}

/** Tells whether two slots hold the same file of the same release. */
export function isSameRelease(a: Slot | undefined, b: Slot): boolean {
  return a?.release.path === b.release.path && a.file.sha256 === b.file.sha256;
}

/** SHA-256 of the release that a rollout has for this device. */
export function ownRelease({ arm, cand }: SeenPlan): string {
  return arm?.sha256 ?? cand;
}

/** Files that a state cannot do without: those of the slots, and those that runs have open. */
export function neededBlobs(state: SlotsState): readonly string[] {
  const slots = slotNames.flatMap((name) => state[name] ?? []);
  const files = slots.flatMap(({ file, golden, profile, proof = [] }) =>
    [file.sha256, ...[golden, profile].flatMap((one) => one?.sha256 ?? [])].concat(proof),
  );
  return [...new Set([...files, ...state.markers.map(({ sha256 }) => sha256)])];
}

/** Files that a state can do without, but patches of releases to come start from: without them, these are larger. */
export function anchorsOf(state: SlotsState): readonly string[] {
  const needed = neededBlobs(state);
  const anchors = [state.committed, state.trial].flatMap((slot) => slot?.anchor?.sha256 ?? []);
  return [...new Set(anchors)].filter((sha256) => !needed.includes(sha256));
}
