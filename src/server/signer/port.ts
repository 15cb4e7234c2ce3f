import type { NamedKey } from '../../trust/keys.ts';
import type { Channels } from '../channels.ts';

/** Roles that the online key signs. */
export type OnlineRole = 'timestamp' | 'snapshot' | 'rollout';

const hourMs = 3_600_000;

/** How long online metadata is valid, and how much of that must be left for it not to be signed again. */
export const validity: Readonly<
  Record<OnlineRole, { readonly days: number; readonly renewBelowMs: number }>
> = {
  timestamp: { days: 3, renewBelowMs: 66 * hourMs },
  snapshot: { days: 7, renewBelowMs: 6 * 24 * hourMs },
  rollout: { days: 7, renewBelowMs: 6 * 24 * hourMs },
};

/** What every request brings: the signer keeps no copy of the database, and believes none of it unverified. */
interface SignRequest {
  /** Version of the new metadata, above all that were signed. */
  readonly version: number;
  /** Texts of all roots, oldest first. */
  readonly roots: readonly string[];
  /** Text of the offline-signed targets. */
  readonly targets: string;
}

/** Asks for the plans of every channel to be signed. */
export interface RolloutSignRequest extends SignRequest {
  readonly channels: Channels;
  /** Text of the rollout that these plans were made from; empty before the first. */
  readonly before: string;
}

/** Asks for a snapshot of targets and rollout. */
export interface SnapshotSignRequest extends SignRequest {
  readonly rollout: string;
}

/** Asks for a timestamp of a snapshot; with it, all of them are in force. */
export interface TimestampSignRequest extends SnapshotSignRequest {
  readonly snapshot: string;
}

/** Texts that belong together. */
export interface SignedSet extends Readonly<Record<OnlineRole | 'targets', string>> {
  readonly roots: readonly string[];
}

/** What a signer says about itself. */
export interface SignerFacts extends NamedKey {
  /** Highest versions that were signed; 0 before the first. */
  readonly versions: Readonly<Record<OnlineRole, number>>;
  /** The set under the newest timestamp that was signed. It is in force, whether or not the answer was received. */
  readonly inForce: SignedSet | undefined;
}

/**
 * Holds the online key and signs with it, if what is asked for keeps what devices rely on. Whoever asks may be
 * compromised: targets are verified from the root on, times are the signer's own, and versions never repeat.
 */
export interface OnlineSigner extends NamedKey {
  public(): Promise<SignerFacts>;
  /**
   * Signs plans.
   * @returns the metadata as text, here and below.
   * @throws {@link ServerError} `ERR_INLAY_CONFLICT` or `ERR_INLAY_REFUSED`, or {@link TrustError}, here and below.
   */
  rollout(request: RolloutSignRequest): Promise<string>;
  snapshot(request: SnapshotSignRequest): Promise<string>;
  timestamp(request: TimestampSignRequest): Promise<string>;
  /** Ends it. Safe to call twice. */
  close(): Promise<void>;
}

/** Where a signer remembers what it signed. */
export interface SignerMemory {
  /** @returns what {@link SignerMemory.write} was given last; `undefined` at first. */
  read(): Promise<unknown>;
  /** Replaces it, all or nothing, and on disk when this resolves. */
  write(value: unknown): Promise<void>;
}
