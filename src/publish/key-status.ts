/** How long each role's metadata is valid, and whether the keys at hand can renew it. */

import type { NamedKey } from '../trust/keys.ts';
import type { Root, Signed, Snapshot, Targets, Timestamp, TopRole } from '../trust/metadata.ts';
import { keysOf } from './root.ts';

/** A role and what has to be done about it. */
export interface RoleStatus {
  readonly role: TopRole | 'rollout';
  readonly version: number;
  /** UTC, `YYYY-MM-DDTHH:MM:SSZ`. */
  readonly expires: string;
  /** Whole days until then; negative once it has expired. */
  readonly daysLeft: number;
  readonly threshold: number;
  readonly keys: readonly {
    readonly keyid: string;
    readonly scheme: string;
    /** Where it is at hand: a file, a variable or a program. */
    readonly at?: string;
    readonly sealed?: boolean;
  }[];
  /** Whether the keys at hand meet the threshold. */
  readonly canSign: boolean;
  readonly state: 'ok' | 'soon' | 'expired';
  /** What to do, if anything. */
  readonly next?: string;
}

/** A key at hand. */
export interface KeyAtHand extends NamedKey {
  readonly where: string;
  readonly isSealed: boolean;
}

/** What {@link createKeyStatus} looks at. */
export interface KeyStatusOptions {
  /** Milliseconds since 1970. */
  readonly now: number;
  /** Offline roles that expire within this many days are due. */
  readonly warnDays: number;
  readonly root: Root;
  /** Bodies in force of the other roles, as far as they are known. */
  readonly bodies: {
    readonly targets?: Targets;
    readonly timestamp?: Timestamp;
    readonly snapshot?: Snapshot;
    readonly rollout?: Targets;
  };
  readonly atHand: readonly KeyAtHand[];
}

const dayMs = 86_400_000;
/** The server renews at 66 of 72 hours: less than a day means that it does not. */
const onlineWarnDays = 1;

/** Sums up root, targets and the online roles, in this order. */
export function createKeyStatus({
  now,
  warnDays,
  root,
  bodies,
  atHand,
}: KeyStatusOptions): readonly RoleStatus[] {
  const statusOf = (role: RoleStatus['role'], body: Signed | undefined): readonly RoleStatus[] => {
    if (!body) return [];
    const isOffline = role === 'root' || role === 'targets';
    const { threshold, keys } = signersOf(role, root, bodies);
    const listed = keys.map(({ keyid, key }) => {
      const held = atHand.find((candidate) => candidate.keyid === keyid);
      return { keyid, scheme: key.scheme, ...(held && { at: held.where, sealed: held.isSealed }) };
    });
    const leftMs = Date.parse(body.expires) - now;
    const daysLeft = Math.floor(leftMs / dayMs);
    const state =
      leftMs <= 0 ? 'expired' : leftMs < (isOffline ? warnDays : onlineWarnDays) * dayMs ? 'soon' : 'ok';
    const canSign = listed.filter(({ at }) => at !== undefined).length >= threshold;
    const next =
      state === 'ok' ? undefined : isOffline ? renewal(role, canSign) : 'see the log of the server';
    const { version, expires } = body;
    return [
      {
        role,
        version,
        expires,
        daysLeft,
        threshold,
        keys: listed,
        canSign,
        state,
        ...(next !== undefined && { next }),
      },
    ];
  };
  return [
    ...statusOf('root', root),
    ...(['targets', 'timestamp', 'snapshot', 'rollout'] as const).flatMap((role) =>
      statusOf(role, bodies[role]),
    ),
  ];
}

function renewal(role: 'root' | 'targets', canSign: boolean): string {
  if (canSign) return 'inlay keys renew';
  return role === 'root'
    ? 'inlay keys renew --draft, for the others to sign'
    : 'inlay keys renew, where its key is';
}

function signersOf(
  role: RoleStatus['role'],
  root: Root,
  bodies: KeyStatusOptions['bodies'],
): { readonly threshold: number; readonly keys: readonly NamedKey[] } {
  if (role !== 'rollout') return { threshold: root.roles[role].threshold, keys: keysOf(root, role) };
  const delegations = bodies.targets?.delegations;
  const rollout = delegations?.roles.find(({ name }) => name === 'rollout');
  const keys = (rollout?.keyids ?? []).flatMap((keyid) => {
    const key = delegations?.keys[keyid];
    return key ? [{ keyid, key }] : [];
  });
  return { threshold: rollout?.threshold ?? 1, keys };
}
