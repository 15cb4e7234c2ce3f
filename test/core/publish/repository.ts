import { toUtf8 } from '../../../src/core/bytes.ts';
import type { Platform } from '../../../src/core/platform.ts';
import {
  addRelease,
  createRoot,
  createRolloutTargets,
  createSnapshot,
  createTargets,
  createTimestamp,
  describeFile,
  expiresIn,
  listReleases,
} from '../../../src/publish/release.ts';
import { setRollout } from '../../../src/publish/rollout.ts';
import { signMetadata } from '../../../src/publish/sign.ts';
import { generateKeyPair, openSigner, toKeyFile, type Signer } from '../../../src/publish/signer.ts';
import { sha256Hex } from '../../../src/trust/keys.ts';
import type { Root, Targets } from '../../../src/trust/metadata.ts';
import type { PlanEntry, SignedPlan } from '../../../src/update/plan.ts';

/** Everything a server holds, in memory, with the keys to sign more of it. */
export interface Repository {
  root: Signer[];
  targetsSigner: Signer;
  online: Signer;
  /** Every signed root, in order. */
  roots: Uint8Array[];
  rootBody: Root;
  targetsBody: Targets;
  plans: Record<string, readonly SignedPlan[]>;
  /** Versions of the next signatures. */
  versions: { timestamp: number; snapshot: number; rollout: number };
  files: { timestamp: Uint8Array; snapshot: Uint8Array; targets: Uint8Array; rollout: Uint8Array };
  /** Signed targets by version: one who has read a tip may ask for them after newer ones have come. */
  targets: Map<number, Uint8Array>;
  blobs: Map<string, Uint8Array>;
  /** Signs targets, rollout, snapshot and timestamp with new versions. */
  signAll(days?: Partial<Record<'timestamp' | 'snapshot' | 'targets' | 'rollout', number>>): Promise<void>;
  /** Signs the next root, by the previous and the new keys. */
  rotateRoot(change: { root?: Signer[]; online?: Signer; days?: number }): Promise<void>;
  release(model: string, version: string, content: Uint8Array): Promise<PlanEntry & { model: string }>;
  rollOut(release: PlanEntry & { model: string }, percent: number, channel?: string): Promise<void>;
}

/** Creates a signer with a new key. */
export async function newSigner(platform: Platform): Promise<Signer> {
  const { subtle } = globalThis.crypto;
  return openSigner({ subtle, platform }, toKeyFile(await generateKeyPair(subtle)));
}

/** Creates a repository with a 2-of-3 root and no releases. */
export async function createRepository(platform: Platform): Promise<Repository> {
  const [a, b, c, targetsSigner, online] = await Promise.all(
    Array.from({ length: 5 }, () => newSigner(platform)),
  );
  if (!a || !b || !c || !targetsSigner || !online) throw new Error('Keys are missing.');
  const empty = new Uint8Array();
  const in365 = expiresIn(platform.now(), 365);
  let salts = 0;
  const repository: Repository = {
    root: [a, b, c],
    targetsSigner,
    online,
    roots: [],
    rootBody: createRoot({
      rootKeys: [a, b, c],
      targetsKeys: [targetsSigner],
      onlineKey: online,
      expires: in365,
    }),
    targetsBody: createTargets({ onlineKey: online, expires: in365 }),
    plans: { stable: [] },
    versions: { timestamp: 1, snapshot: 1, rollout: 1 },
    files: { timestamp: empty, snapshot: empty, targets: empty, rollout: empty },
    targets: new Map(),
    blobs: new Map(),

    signAll: async (days = {}) => {
      const { versions, targetsBody } = repository;
      const at = (role: 'timestamp' | 'snapshot' | 'targets' | 'rollout', usual: number): string =>
        expiresIn(platform.now(), days[role] ?? usual);
      repository.targetsBody = { ...targetsBody, expires: at('targets', 180) };
      const targets = await signMetadata(repository.targetsBody, [repository.targetsSigner]);
      const rolloutBody = createRolloutTargets(platform, {
        version: versions.rollout,
        expires: at('rollout', 7),
        channels: repository.plans,
      });
      const rollout = await signMetadata(rolloutBody, [repository.online]);
      const snapshotBody = createSnapshot({
        version: versions.snapshot,
        expires: at('snapshot', 7),
        meta: {
          'targets.json': describeFile(platform, targetsBody.version, targets),
          'rollout.json': describeFile(platform, versions.rollout, rollout),
        },
      });
      const snapshot = await signMetadata(snapshotBody, [repository.online]);
      const timestampBody = createTimestamp({
        version: versions.timestamp,
        expires: at('timestamp', 3),
        snapshot: describeFile(platform, versions.snapshot, snapshot),
      });
      const timestamp = await signMetadata(timestampBody, [repository.online]);
      repository.targets.set(targetsBody.version, targets);
      repository.files = { timestamp, snapshot, targets, rollout };
      repository.versions = {
        timestamp: versions.timestamp + 1,
        snapshot: versions.snapshot + 1,
        rollout: versions.rollout + 1,
      };
    },

    rotateRoot: async ({ root = repository.root, online: nextOnline = repository.online, days = 365 }) => {
      const signers = new Map([...repository.root, ...root].map((signer) => [signer.keyid, signer]));
      repository.rootBody = createRoot({
        rootKeys: root,
        targetsKeys: [repository.targetsSigner],
        onlineKey: nextOnline,
        expires: expiresIn(platform.now(), days),
        version: repository.rootBody.version + 1,
      });
      repository.roots.push(await signMetadata(repository.rootBody, [...signers.values()]));
      repository.root = root;
      if (nextOnline !== repository.online) {
        repository.online = nextOnline;
        const { version, targets } = repository.targetsBody;
        const fresh = createTargets({ onlineKey: nextOnline, expires: repository.targetsBody.expires });
        repository.targetsBody = { ...fresh, version: version + 1, targets };
      }
    },

    release: async (model, version, content) => {
      const sha256 = sha256Hex(platform, content);
      repository.blobs.set(sha256, content);
      const added = addRelease(repository.targetsBody, {
        model,
        version,
        file: 'model.onnx',
        length: content.length,
        sha256,
        expires: repository.targetsBody.expires,
      });
      repository.targetsBody = added.targets;
      await repository.signAll();
      const entry = listReleases(added.targets).find(({ path }) => path === added.path);
      if (!entry) throw new Error('The release is not listed.');
      return entry;
    },

    rollOut: async (release, percent, channel = 'stable') => {
      salts += 1;
      const salt = salts.toString(16).padStart(16, '0');
      repository.plans = {
        ...repository.plans,
        [channel]: setRollout(repository.plans[channel] ?? [], release, percent, () => salt),
      };
      await repository.signAll();
    },
  };
  repository.roots.push(await signMetadata(repository.rootBody, [a, b]));
  await repository.signAll();
  return repository;
}

/** A server over a repository: counts requests, and lets a test answer in its place. */
export interface FakeServer {
  readonly fetch: Platform['fetch'];
  readonly requests: { readonly path: string; readonly status: number }[];
  /** Answers instead of the server where it returns something. */
  intercept: (path: string) => Response | undefined | Promise<Response | undefined>;
}

/** Serves a repository by `docs/protocol.md`. */
export function serve(repository: () => Repository): FakeServer {
  const answer = (path: string, headers: Headers): Response => {
    const { roots, files, targets, blobs } = repository();
    const tip = /^\/v1\/tip\?root=(\d+)$/.exec(path);
    if (tip) {
      const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
      const body = JSON.stringify({
        roots: roots.slice(Number(tip[1])).map(text),
        timestamp: text(files.timestamp),
        snapshot: text(files.snapshot),
        rollout: text(files.rollout),
      });
      const etag = `"${path.length}-${[...body].reduce((sum, char) => (sum * 31 + char.charCodeAt(0)) | 0, 7)}"`;
      if (headers.get('if-none-match') === etag)
        return new Response(null, { status: 304, headers: { etag } });
      return new Response(toUtf8(body), { headers: { 'content-type': 'application/json', etag } });
    }
    const kept = targets.get(Number(/^\/v1\/metadata\/(\d+)\.targets\.json$/.exec(path)?.[1]));
    if (kept) return new Response(kept.slice(), { headers: { 'content-type': 'application/json' } });
    const blob = blobs.get(/^\/v1\/targets\/models\/.*\/([0-9a-f]{64})\.[^/]+$/.exec(path)?.[1] ?? '');
    if (blob) return new Response(blob.slice(), { headers: { 'content-type': 'application/octet-stream' } });
    return Response.json({ code: 'ERR_INLAY_NOT_FOUND', message: 'There is no such file.' }, { status: 404 });
  };
  const server: FakeServer = {
    requests: [],
    intercept: () => undefined,
    fetch: async (url, init) => {
      const path = url.replace('https://sync.test', '');
      const response = (await server.intercept(path)) ?? answer(path, new Headers(init?.headers));
      server.requests.push({ path, status: response.status });
      return response;
    },
  };
  return server;
}
