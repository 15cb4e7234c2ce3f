import { StoreError } from '../../core/errors.ts';
import { isFields, isSize, type Fields } from '../../trust/parse.ts';
import type { OnlineRole, SignedSet } from './port.ts';

/** What a signer remembers: enough to refuse what would contradict it. */
export interface SignerNotes {
  /** Highest versions that were signed. */
  readonly versions: Readonly<Record<OnlineRole, number>>;
  /** The set under the newest timestamp. */
  readonly inForce: SignedSet | undefined;
  /** Channel and identifier of rollouts that are over. */
  readonly ended: readonly string[];
}

/** Notes of a signer that has signed nothing. */
export const emptyNotes: SignerNotes = {
  versions: { timestamp: 0, snapshot: 0, rollout: 0 },
  inForce: undefined,
  ended: [],
};

/**
 * Reads notes that were stored.
 * @throws {@link StoreError} `ERR_INLAY_STORE_IO` if they are damaged: forgetting them would let old plans come back.
 */
export function readNotes(value: unknown): SignerNotes {
  if (value === undefined) return emptyNotes;
  const { versions, inForce, ended } = isFields(value) ? value : ({} as Fields);
  if (isFields(versions) && isVersions(versions) && isSet(inForce) && isTexts(ended)) {
    return { versions, inForce, ended };
  }
  throw new StoreError(
    'ERR_INLAY_STORE_IO',
    'What the signer wrote down is damaged; restore it from a backup, or delete it to begin anew from the database.',
  );
}

function isVersions(value: Fields): value is Fields & SignerNotes['versions'] {
  return isSize(value['timestamp']) && isSize(value['snapshot']) && isSize(value['rollout']);
}

function isSet(value: unknown): value is SignedSet | undefined {
  if (value === undefined) return true;
  return (
    isFields(value) &&
    isTexts(value['roots']) &&
    (['targets', 'rollout', 'snapshot', 'timestamp'] as const).every(
      (role) => typeof value[role] === 'string',
    )
  );
}

function isTexts(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((text) => typeof text === 'string');
}
