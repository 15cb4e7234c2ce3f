import type { Plan } from '../update/plan.ts';
import type { CatalogState, Release } from './catalog.ts';

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
  /** Releases, in the order in which they were published. */
  readonly models: Readonly<Record<string, readonly Omit<Release, 'model'>[]>>;
  /** Plans by channel. */
  readonly channels: Readonly<Record<string, readonly Plan[]>>;
  readonly blobs: { readonly count: number; readonly sizeBytes: number };
}

/** Sums up what is installed. */
export function createStatus(
  onlineKey: string,
  { heads, root, published }: CatalogState,
  blobs: ServerStatus['blobs'],
): ServerStatus {
  const models = new Map<string, Omit<Release, 'model'>[]>();
  const releases = [...(published?.releases.values() ?? [])].sort((a, b) => a.seq - b.seq);
  for (const { model, ...release } of releases) {
    const listed = models.get(model);
    if (listed) listed.push(release);
    else models.set(model, [release]);
  }
  const online = Object.entries(published?.expiresMs ?? {}).map(
    ([role, ms]) => [role, `${new Date(ms).toISOString().slice(0, 19)}Z`] as const,
  );
  return {
    onlineKey,
    root: heads.root ?? 0,
    targets: heads.targets ?? 0,
    expires: {
      ...(root && { root: root.expires }),
      ...(published && { targets: published.targets.expires }),
      ...Object.fromEntries(online),
    },
    models: Object.fromEntries(models),
    channels: published?.channels ?? {},
    blobs,
  };
}
