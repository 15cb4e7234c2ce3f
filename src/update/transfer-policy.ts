/** Whether a device may download now: what the rollout asks for, and what the app does. */

import { UpdateError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import type { FileRef } from './manifest.ts';
import type { NetworkRules } from './plan.ts';

/**
 * What a policy decides by. What the runtime does not tell is absent. `length` is that of what travels: of a patch where
 * one serves, with those that have to follow it.
 */
export interface DownloadFacts extends FileRef {
  readonly isMetered?: boolean;
  readonly isCharging?: boolean;
  readonly isIdle?: boolean;
}

/** The app's own conditions, which hold besides those of a rollout: as rules, or as a function that decides. */
export type DownloadPolicy = Partial<NetworkRules> | ((facts: DownloadFacts) => boolean | Promise<boolean>);

/** Why a download waits. */
export type HoldReason = 'paused' | 'metered' | 'not-charging' | 'in-use' | 'policy';

/** What {@link holdReason} goes by. */
export interface HoldRules {
  /** What the rollout asks for. */
  readonly net?: Partial<NetworkRules> | undefined;
  readonly policy?: DownloadPolicy | undefined;
}

/** Finds out why a file may not be downloaded now; `undefined` if it may. */
export async function holdReason(
  { conditions }: Pick<Platform, 'conditions'>,
  { net = {}, policy = {} }: HoldRules,
  { path, sha256, length }: FileRef,
): Promise<HoldReason | undefined> {
  const facts = conditions?.() ?? {};
  const rules = typeof policy === 'function' ? {} : policy;
  const asks = (rule: keyof NetworkRules): boolean => net[rule] === true || rules[rule] === true;
  if (asks('unmetered') && facts.isMetered === true) return 'metered';
  if (asks('charging') && facts.isCharging === false) return 'not-charging';
  if (asks('idle') && facts.isIdle === false) return 'in-use';
  if (typeof policy !== 'function') return undefined;
  return (await policy({ ...facts, path, sha256, length })) ? undefined : 'policy';
}

/** The error for those who do not want to wait. */
export function heldError({ path, sha256 }: FileRef, reason: HoldReason): UpdateError {
  return new UpdateError(
    'ERR_INLAY_UPDATE_HELD',
    `The download of ${path} waits (${reason}); it goes on when that has changed.`,
    { details: { path, sha256, reason } },
  );
}
