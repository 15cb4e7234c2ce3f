/** Root and targets that wait for signatures: who has signed, who still may, and what would change. */

import { canonicalJson } from '../trust/canonical-json.ts';
import type { NamedKey } from '../trust/keys.ts';
import type { Envelope, Root, Signed, Targets, TopRole } from '../trust/metadata.ts';
import { isSignature, type CommandSignerOptions } from './key-command.ts';
import { keysOf, type OfflineRole } from './root.ts';
import { fromHex } from '../core/bytes.ts';

/** Metadata that waits for signatures, with its role. */
export type Draft =
  | { readonly role: 'root'; readonly envelope: Envelope<Root> }
  | { readonly role: 'targets'; readonly envelope: Envelope<Targets> };

/** How far metadata is signed for one root. */
export interface SignatureCount {
  /** Version of the root whose keys are counted. */
  readonly root: number;
  readonly threshold: number;
  /** Identifiers of keys whose signatures are valid. */
  readonly valid: readonly string[];
  /** Identifiers of keys that have not signed. */
  readonly open: readonly string[];
  /** How many signatures are missing. */
  readonly missing: number;
}

type Verifier = CommandSignerOptions['platform'];

/** Counts the signatures that a root asks for; one key counts once, whatever identifiers it goes by. */
export async function countSignatures(
  platform: Verifier,
  envelope: Envelope,
  root: Root,
  role: OfflineRole,
): Promise<SignatureCount> {
  const keys = keysOf(root, role);
  const valid = new Set(await validSignatures(platform, envelope, keys));
  const { threshold } = root.roles[role];
  const signedBy = new Set(
    keys.filter(({ keyid }) => valid.has(keyid)).map(({ key }) => key.keyval.public.toLowerCase()),
  );
  return {
    root: root.version,
    threshold,
    valid: [...valid],
    open: keys.map(({ keyid }) => keyid).filter((keyid) => !valid.has(keyid)),
    missing: Math.max(0, threshold - signedBy.size),
  };
}

/** Leaves out signatures that none of the keys made. */
export async function withoutWrong<Body extends Signed>(
  platform: Verifier,
  envelope: Envelope<Body>,
  keys: readonly NamedKey[],
): Promise<Envelope<Body>> {
  const valid = new Set(await validSignatures(platform, envelope, keys));
  return { ...envelope, signatures: envelope.signatures.filter(({ keyid }) => valid.has(keyid)) };
}

/** What one role would have after the next root, where that differs. */
export interface RoleChange {
  readonly role: TopRole;
  readonly threshold: readonly [before: number, after: number];
  readonly added: readonly string[];
  readonly removed: readonly string[];
}

/** Lists the roles that a root gives to other keys, or with another threshold, than the root before it, if that is known. */
export function compareRoots(before: Root | undefined, after: Root): readonly RoleChange[] {
  return (['root', 'targets', 'timestamp', 'snapshot'] as const)
    .map((role) => {
      const from = before?.roles[role] ?? { keyids: [], threshold: 0 };
      const to = after.roles[role];
      return {
        role,
        threshold: [from.threshold, to.threshold] as const,
        added: to.keyids.filter((id) => !from.keyids.includes(id)),
        removed: from.keyids.filter((id) => !to.keyids.includes(id)),
      };
    })
    .filter(({ threshold: [from, to], added, removed }) => from !== to || added.length + removed.length > 0);
}

async function validSignatures(
  platform: Verifier,
  { signatures, signed }: Envelope,
  keys: readonly NamedKey[],
): Promise<readonly string[]> {
  const message = canonicalJson(signed);
  const valid: string[] = [];
  for (const { keyid, sig } of signatures) {
    const key = keys.find((candidate) => candidate.keyid === keyid);
    if (key && (await isSignature(platform, key, fromHex(sig), message))) valid.push(keyid);
  }
  return valid;
}
