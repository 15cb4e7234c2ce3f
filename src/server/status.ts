import { isWithdrawn } from '../publish/release.ts';
import type { NamedKey } from '../trust/keys.ts';
import type { SignedPlan } from '../update/plan.ts';
import type { CatalogState, Release } from './catalog-state.ts';

/** Metadata that expires soon. */
export interface ExpiryWarning {
  readonly role: string;
  /** `YYYY-MM-DDTHH:MM:SSZ`. */
  readonly expires: string;
  /** Seconds until then; negative once it has expired. */
  readonly leftS: number;
  /** What it means, and what to do. */
  readonly message: string;
}

/** A release of a model; `isWithdrawn` where no device may run it any more. */
export type StatusRelease = Omit<Release, 'model'> & { readonly isWithdrawn?: true };

/** What `GET /v1/admin/status` answers. */
export interface ServerStatus {
  /** Identifier of the server's own key. */
  readonly onlineKey: string;
  /** Version of the newest root; 0 before the first. */
  readonly root: number;
  /** Version of the targets; 0 before the first. */
  readonly targets: number;
  /** When each role's metadata expires, `YYYY-MM-DDTHH:MM:SSZ`. */
  readonly expires: Readonly<Record<string, string>>;
  /** Seconds until then, by role. */
  readonly expiresInS: Readonly<Record<string, number>>;
  /** Offline roles with less than 30 days left, and online ones with less than 24 hours. */
  readonly warnings: readonly ExpiryWarning[];
  /** Releases, in the order in which they were published. */
  readonly models: Readonly<Record<string, readonly StatusRelease[]>>;
  /** Plans by channel. */
  readonly channels: Readonly<Record<string, readonly SignedPlan[]>>;
  readonly blobs: { readonly count: number; readonly sizeBytes: number };
}

const dayS = 86_400;

/** Sums up what is installed. */
export function createStatus(
  { keyid }: NamedKey,
  state: CatalogState,
  blobs: ServerStatus['blobs'],
  now: number,
): ServerStatus {
  const { heads, published } = state;
  const models = new Map<string, StatusRelease[]>();
  const releases = [...(published?.releases.values() ?? [])].sort((a, b) => a.seq - b.seq);
  for (const { model, ...facts } of releases) {
    const isOut = published !== undefined && isWithdrawn(published.targets, model, facts.seq);
    const release: StatusRelease = { ...facts, ...(isOut && { isWithdrawn: true }) };
    const listed = models.get(model);
    if (listed) listed.push(release);
    else models.set(model, [release]);
  }
  const expires = expiriesOf(state);
  return {
    onlineKey: keyid,
    root: heads.root ?? 0,
    targets: heads.targets ?? 0,
    expires,
    expiresInS: Object.fromEntries(
      Object.entries(expires).map(([role, time]) => [role, secondsTo(time, now)] as const),
    ),
    warnings: expiryWarnings(state, now),
    models: Object.fromEntries(models),
    channels: published?.channels ?? {},
    blobs,
  };
}

/** Lists the roles whose metadata expires soon. */
export function expiryWarnings(state: CatalogState, now: number): readonly ExpiryWarning[] {
  return Object.entries(expiriesOf(state)).flatMap(([role, expires]) => {
    const isOffline = role === 'root' || role === 'targets';
    const leftS = secondsTo(expires, now);
    if (leftS >= (isOffline ? 30 : 1) * dayS) return [];
    const when = leftS <= 0 ? 'expired' : 'expires';
    const remedy = isOffline
      ? 'sign it again with `inlay keys renew`'
      : 'the server has not been able to sign it again, its log says why';
    return [
      {
        role,
        expires,
        leftS,
        message: `The metadata of role ${role} ${when} at ${expires}; ${remedy}. Devices take no update without it.`,
      },
    ];
  });
}

function expiriesOf({ root, published }: CatalogState): Readonly<Record<string, string>> {
  const online = Object.entries(published?.expiresMs ?? {}).map(
    ([role, ms]) => [role, `${new Date(ms).toISOString().slice(0, 19)}Z`] as const,
  );
  return {
    ...(root && { root: root.expires }),
    ...(published && { targets: published.targets.expires }),
    ...Object.fromEntries(online),
  };
}

function secondsTo(time: string, now: number): number {
  return Math.floor((Date.parse(time) - now) / 1000);
}
