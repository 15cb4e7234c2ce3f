/** That root and targets let the online key, alone, sign what it has to, and nothing else. */

import { ServerError } from '../../core/errors.ts';
import type { NamedKey } from '../../trust/keys.ts';
import type { PublicKey, RoleKeys, Root, Targets } from '../../trust/metadata.ts';

/**
 * Checks that the online key alone can sign what a root gives it to sign.
 * @throws {@link ServerError} `ERR_INLAY_REFUSED`
 */
export function assertOnlineRoot({ roles, keys }: Root, onlineKey: NamedKey): void {
  for (const name of ['timestamp', 'snapshot'] as const) assertOnlineRole(roles[name], name, keys, onlineKey);
}

/**
 * Checks that targets delegate `rollout/*`, and nothing else, to the online key.
 * @throws {@link ServerError} `ERR_INLAY_REFUSED`
 */
export function assertOnlineDelegation({ delegations }: Targets, onlineKey: NamedKey): void {
  const [role, ...others] = delegations?.roles ?? [];
  if (!delegations || role?.name !== 'rollout' || others.length > 0 || role.paths?.join() !== 'rollout/*') {
    throw new ServerError(
      'ERR_INLAY_REFUSED',
      'The targets must delegate rollout/* to the role rollout, and nothing else to anyone; sign them anew.',
    );
  }
  assertOnlineRole(role, 'rollout', delegations.keys, onlineKey);
}

function assertOnlineRole(
  { keyids, threshold }: RoleKeys,
  name: string,
  keys: Readonly<Record<string, PublicKey>>,
  { keyid, key }: NamedKey,
): void {
  const named = Object.hasOwn(keys, keyid) ? keys[keyid] : undefined;
  const isSame = named?.scheme === key.scheme && named.keyval.public === key.keyval.public;
  if (threshold === 1 && keyids.includes(keyid) && isSame) return;
  throw new ServerError(
    'ERR_INLAY_REFUSED',
    `The role ${name} must be signable by this server's key ${keyid} alone; sign metadata that names it.`,
    { details: { role: name, keyid } },
  );
}
