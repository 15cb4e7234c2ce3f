/** The online key's three verbs. What it signs is checked here again, whoever asks for it. */

import { ServerError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import {
  createRolloutTargets,
  createSnapshot,
  createTimestamp,
  expiresIn,
  listReleases,
} from '../publish/release.ts';
import { signMetadata } from '../publish/sign.ts';
import type { Signer } from '../publish/signer.ts';
import type { NamedKey } from '../trust/keys.ts';
import type { MetaFile, PublicKey, RoleKeys, Root, Targets } from '../trust/metadata.ts';
import type { Plan, PlanEntry, RolloutPlans } from '../update/plan.ts';

/** Plans by channel. */
export type Channels = Readonly<Record<string, readonly Plan[]>>;

/** Signs online metadata, valid from now on. */
export interface OnlineSigning {
  /**
   * Signs the plans of every channel.
   * @param before plans that are in force.
   * @param targets releases that plans may name.
   * @throws {@link ServerError} `ERR_INLAY_CONFLICT` if the plans break an invariant.
   */
  rollout(
    version: number,
    before: Channels,
    after: Channels,
    targets: Targets,
  ): Promise<Uint8Array<ArrayBuffer>>;
  snapshot(version: number, meta: Readonly<Record<string, MetaFile>>): Promise<Uint8Array<ArrayBuffer>>;
  timestamp(version: number, snapshot: MetaFile): Promise<Uint8Array<ArrayBuffer>>;
}

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

/** Creates the signing service of one online key. */
export function createOnlineSigning(options: {
  readonly signer: Signer;
  readonly platform: Pick<Platform, 'now' | 'createSha256'>;
}): OnlineSigning {
  const { signer, platform } = options;
  const expires = (role: OnlineRole): string => expiresIn(platform.now(), validity[role].days);
  return {
    rollout: async (version, before, after, targets) => {
      assertPlans(before, after, targets);
      const body = createRolloutTargets(platform, { version, expires: expires('rollout'), channels: after });
      return signMetadata(body, [signer]);
    },
    snapshot: (version, meta) =>
      signMetadata(createSnapshot({ version, expires: expires('snapshot'), meta }), [signer]),
    timestamp: (version, snapshot) =>
      signMetadata(createTimestamp({ version, expires: expires('timestamp'), snapshot }), [signer]),
  };
}

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
  if (!delegations || role?.name !== 'rollout' || others.length > 0 || role.paths.join() !== 'rollout/*') {
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

/** Plans of one channel; none for one that is not there, even if `Object` has its name. */
export function plansOf(channels: Channels, channel: string): readonly Plan[] {
  return Object.hasOwn(channels, channel) ? (channels[channel] ?? []) : [];
}

/** Reads the plans out of the `rollout` role's metadata. */
export function channelsOf(rollout: Targets): Channels {
  return Object.fromEntries(
    Object.entries(rollout.targets).map(([path, { custom }]) => {
      const { plans } = custom as unknown as RolloutPlans;
      return [path.slice('rollout/'.length, -'.json'.length), plans];
    }),
  );
}

/**
 * Checks what every device relies on: a running release is one that the offline key signed, and within one rollout
 * the candidate, the base and the salt stay while the share only rises.
 * @throws {@link ServerError} `ERR_INLAY_CONFLICT`
 */
export function assertPlans(before: Channels, after: Channels, targets: Targets): void {
  const releases = new Map(listReleases(targets).map((release) => [release.path, release]));
  for (const [channel, plans] of Object.entries(after)) {
    const models = new Set<string>();
    for (const plan of plans) {
      const { id, model, base, cand, bp, state, salt } = plan;
      const refuse = (problem: string): never => {
        throw new ServerError(
          'ERR_INLAY_CONFLICT',
          `The rollout of ${model} in channel ${channel} would break: ${problem}.`,
          { details: { channel, model, rollout: id } },
        );
      };
      const isListed = (entry: PlanEntry): boolean => {
        const release = releases.get(entry.path);
        return release?.model === model && sameEntry(release, entry);
      };
      if (models.has(model)) refuse('the channel has two plans for it; keep one');
      models.add(model);
      if (!isListed(cand))
        refuse(`the signed targets do not list version ${cand.version}; roll out one they list first`);
      // Once complete, no device runs the base, and its release may go.
      if (base && state === 'ramp' && !isListed(base)) {
        refuse(
          `the signed targets do not list version ${base.version}, which other devices run; complete it first`,
        );
      }
      if (!Number.isSafeInteger(bp) || bp < 0 || bp > 10_000 || (state === 'complete') !== (bp === 10_000)) {
        refuse(`a share of ${bp} basis points does not fit the state ${state}`);
      }
      const present = plansOf(before, channel).find((other) => other.id === id);
      if (!present) continue;
      if (present.salt !== salt || present.model !== model || !sameEntry(present.cand, cand)) {
        refuse('its salt, model or candidate changed; start a new rollout');
      }
      if (present.base === null ? base !== null : base === null || !sameEntry(present.base, base)) {
        refuse('its base changed; start a new rollout');
      }
      if (bp < present.bp) refuse('its share fell; roll out the earlier version instead');
    }
  }
}

function sameEntry(a: PlanEntry, b: PlanEntry): boolean {
  return (
    a.path === b.path &&
    a.sha256 === b.sha256 &&
    a.length === b.length &&
    a.seq === b.seq &&
    a.version === b.version
  );
}
