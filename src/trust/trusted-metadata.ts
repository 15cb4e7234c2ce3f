/** What a trusted set offers; `client.ts` makes one. */

import type { Platform } from '../core/platform.ts';
import type { HashPlatform } from './checks.ts';
import type { Root, Snapshot, Targets, Timestamp } from './metadata.ts';
import type { SignaturePlatform } from './verify.ts';

/** What a trusted set is made of. */
export interface TrustedMetadataOptions {
  readonly platform: Pick<Platform, 'now'> & HashPlatform & SignaturePlatform;
  /** The root that came with the app; everything else is trusted because of it. */
  readonly root: Uint8Array;
  /** What {@link TrustedMetadata.export} gave earlier. What no longer verifies is dropped. */
  readonly stored?: Readonly<Record<string, string>>;
}

/**
 * Metadata that was verified. A failing update throws and leaves the set as it was. All expiries of one set are
 * measured against the time at which it was created (TUF 1.0 §5.1), so a set serves one update cycle; and that time is
 * never earlier than the `issued` of the timestamp that it holds, so a clock that stands wrong revives nothing.
 */
export interface TrustedMetadata {
  readonly root: Root;
  readonly timestamp: Timestamp | undefined;
  /** May be older than what `timestamp` pins, between the two updates. */
  readonly snapshot: Snapshot | undefined;
  /** Present only while it is the one that `snapshot` pins. */
  readonly targets: Targets | undefined;
  /** Present only while it is the one that `snapshot` pins and `targets` delegates to its signers. */
  readonly rollout: Targets | undefined;
  /**
   * The metadata of a delegated role, as far as this delegator's keys signed it: a role that two others delegate to is
   * verified against each. Present only while it is the one that `snapshot` pins and has not expired.
   */
  delegated(delegator: string, role: string): Targets | undefined;
  /** Whether a role is present, belongs to what is above it, and has not expired, as all above it have not. */
  isCurrent(role: 'snapshot' | 'targets'): boolean;
  /** Takes the next root: signed by the present threshold and by its own, version exactly one higher. */
  updateRoot(bytes: Uint8Array): Promise<void>;
  /** Takes a timestamp. @returns whether it is newer; the same version again changes nothing. */
  updateTimestamp(bytes: Uint8Array): Promise<boolean>;
  /** Takes the snapshot that `timestamp` pins. */
  updateSnapshot(bytes: Uint8Array): Promise<void>;
  /** Takes the targets that `snapshot` pins. */
  updateTargets(bytes: Uint8Array): Promise<void>;
  /**
   * Takes the metadata that `snapshot` pins of a role, signed by those to whom the delegator delegates it.
   * @param delegator `targets`, or a delegated role that the set holds.
   */
  updateDelegated(delegator: string, role: string, bytes: Uint8Array): Promise<void>;
  /** Takes the `rollout` role's metadata: `updateDelegated` for `targets`. It may only list `rollout/*`. */
  updateRollout(bytes: Uint8Array): Promise<void>;
  /**
   * Checks that root, timestamp, snapshot, targets and, if the snapshot lists it, rollout are present, belong together
   * and have not expired.
   * @param atMs milliseconds since 1970; default: the set's own time.
   * @throws {@link TrustError} `ERR_INLAY_EXPIRED` or `ERR_INLAY_METADATA_INVALID`
   */
  assertCurrent(atMs?: number): void;
  /** Texts as they were received, to be stored and passed as `stored` later. */
  export(): Record<string, string>;
}
