/**
 * The client workflow of TUF 1.0 §5 over a repository of plain files, wherever they lie: who calls passes in how files are
 * fetched and where verified metadata is kept.
 */

import { fromUtf8 } from '../core/bytes.ts';
import { NetworkError, TrustError, isInlayError } from '../core/errors.ts';
import { assertTarget, capOf, invalid, metadataCaps, receive, show, type HashPlatform } from './checks.ts';
import {
  createTrustedMetadata,
  keyOfDelegated,
  type TrustedMetadata,
  type TrustedMetadataOptions,
} from './client.ts';
import { delegationsFor } from './delegations.ts';
import type { MetaFile, TargetFile, Targets } from './metadata.ts';
import { parseEnvelope } from './parse.ts';

/** New roots that one cycle takes (TUF 1.0 §5.3.3). */
const maxRoots = 256;
/** Delegated roles that one search visits (TUF 1.0 §5.6.7.1). */
const maxRoles = 32;

/** Where metadata comes from, and where it stays. */
export interface MetadataSource {
  /**
   * Fetches a metadata file.
   * @param name as a part of its URL, percent-encoded where necessary.
   * @param capBytes the request ends as soon as more has come.
   * @returns `undefined` if there is no such file.
   */
  fetchMetadata(name: string, capBytes: number): Promise<Uint8Array | undefined>;
  /**
   * Keeps what was verified, before anything else is fetched: bytes by the keys of {@link TrustedMetadata.export};
   * `undefined` stands for what no longer counts. All of one call is one step.
   */
  save?(changes: Readonly<Record<string, Uint8Array | undefined>>): Promise<void>;
  /** Gives back what was saved under a key. It is verified again. */
  load?(key: string): Promise<Uint8Array | undefined>;
}

/**
 * Brings root, timestamp, snapshot and targets up to date (TUF 1.0 §5.3–5.6). Each is saved as soon as it is verified,
 * also if what comes after it fails.
 * @throws {@link TrustError}; {@link NetworkError} `ERR_INLAY_HTTP_STATUS` if a file is missing; and what the source throws.
 */
export async function refreshMetadata(trusted: TrustedMetadata, source: MetadataSource): Promise<void> {
  for (let taken = 0; taken < maxRoots; taken += 1) {
    const version = trusted.root.version + 1;
    const bytes = await source.fetchMetadata(`${version}.root.json`, metadataCaps.root);
    if (bytes === undefined) break;
    await trusted.updateRoot(bytes);
    const isReset = trusted.timestamp === undefined;
    await source.save?.({
      [`root.${version}`]: bytes,
      ...(isReset && { timestamp: undefined, snapshot: undefined }),
    });
  }
  const timestamp = await fetchFile(source, 'timestamp.json', metadataCaps.timestamp);
  if (await trusted.updateTimestamp(timestamp)) await source.save?.({ timestamp });
  if (!trusted.isCurrent('snapshot')) {
    const pin = trusted.timestamp?.meta['snapshot.json'];
    const snapshot = await fetchPinned(trusted, source, 'snapshot', pin);
    await trusted.updateSnapshot(snapshot);
    await source.save?.({ snapshot });
  }
  if (!trusted.isCurrent('targets')) {
    const targets = await fetchPinned(trusted, source, 'targets', trusted.snapshot?.meta['targets.json']);
    await trusted.updateTargets(targets);
    await source.save?.({ targets });
  }
}

/**
 * Gives the metadata of a delegated role: the one that is held or saved if it is still the pinned one and this delegator's
 * keys signed it, otherwise the one that the repository has.
 * @param delegator `targets`, or a delegated role that the set holds.
 * @throws as {@link refreshMetadata}.
 */
export async function refreshDelegated(
  trusted: TrustedMetadata,
  source: MetadataSource,
  delegator: string,
  role: string,
): Promise<Targets> {
  const held = trusted.delegated(delegator, role);
  if (held) return held;
  const key = keyOfDelegated(role);
  const saved = await source.load?.(key);
  if (saved === undefined || !(await isTaken(trusted, delegator, role, saved))) {
    const meta = trusted.snapshot?.meta ?? {};
    const pin = Object.hasOwn(meta, `${role}.json`) ? meta[`${role}.json`] : undefined;
    const bytes = await fetchPinned(trusted, source, role, pin);
    await trusted.updateDelegated(delegator, role, bytes);
    await source.save?.({ [key]: bytes });
  }
  const taken = trusted.delegated(delegator, role);
  if (!taken) throw invalid(`there is no metadata of the role ${show(role)}`);
  return taken;
}

async function isTaken(
  trusted: TrustedMetadata,
  delegator: string,
  role: string,
  bytes: Uint8Array,
): Promise<boolean> {
  try {
    await trusted.updateDelegated(delegator, role, bytes);
    return true;
  } catch (error) {
    if (isInlayError(error) && error.name === 'TrustError') return false;
    throw error;
  }
}

/** A file that signed metadata lists. */
export interface FoundTarget {
  readonly path: string;
  readonly file: TargetFile;
  /** Who lists it. */
  readonly role: string;
}

/**
 * Searches the targets and those to whom they delegate the path, in pre-order and depth first (TUF 1.0 §5.6.7).
 * @param trusted refreshed.
 * @returns `undefined` if nobody who may lists it.
 * @throws as {@link refreshMetadata}; also if the search leads to more than 32 roles.
 */
async function findTarget(
  platform: HashPlatform,
  trusted: TrustedMetadata,
  source: MetadataSource,
  path: string,
): Promise<FoundTarget | undefined> {
  const visited = new Set<string>();
  /** @returns `end` where a terminating delegation ends the whole search. */
  const search = async (role: string, targets: Targets): Promise<FoundTarget | 'end' | undefined> => {
    const file = Object.hasOwn(targets.targets, path) ? targets.targets[path] : undefined;
    if (file) return { path, file, role };
    for (const { name, terminating } of delegationsFor(platform, targets, path)) {
      if (!visited.has(name)) {
        if (visited.size === maxRoles) throw invalid(`the search for ${show(path)} leads to too many roles`);
        visited.add(name);
        const found = await search(name, await refreshDelegated(trusted, source, role, name));
        if (found) return found;
      }
      if (terminating) return 'end';
    }
    return undefined;
  };
  if (!trusted.targets) throw invalid('there is no targets to search yet');
  const found = await search('targets', trusted.targets);
  return found === 'end' ? undefined : found;
}

/** What a client of one repository is made of. */
export interface RepositoryClientOptions {
  readonly platform: TrustedMetadataOptions['platform'];
  /** The root that came with the app. */
  readonly root: Uint8Array;
  readonly source: MetadataSource;
  /**
   * Fetches a target file.
   * @param name as a part of its URL, percent-encoded where necessary.
   * @param capBytes the request ends as soon as more has come.
   */
  readonly fetchTarget: (name: string, capBytes: number) => Promise<Uint8Array>;
}

/** A client of one repository: metadata, search and downloads by the standard workflow. */
export interface RepositoryClient {
  /** Begins an update cycle. @returns the verified metadata. */
  refresh(): Promise<TrustedMetadata>;
  /** Searches for a file; refreshes first if nobody has yet. */
  find(path: string): Promise<FoundTarget | undefined>;
  /**
   * Fetches a file into memory and checks its length and hashes.
   * @throws {@link TrustError} `ERR_INLAY_LENGTH` or `ERR_INLAY_HASH`.
   */
  download(target: FoundTarget): Promise<Uint8Array>;
}

/** Creates a client. It does nothing until it is asked. */
export function createRepositoryClient(options: RepositoryClientOptions): RepositoryClient {
  const { platform, root, source, fetchTarget } = options;
  let cycle: Promise<TrustedMetadata> | undefined;
  const open = async (): Promise<TrustedMetadata> => {
    const trusted = await createTrustedMetadata({ platform, root, stored: await loadAll(source, root) });
    await refreshMetadata(trusted, source);
    return trusted;
  };
  const refresh = async (): Promise<TrustedMetadata> => {
    const begun = open();
    cycle = begun;
    try {
      return await begun;
    } catch (error) {
      if (cycle === begun) cycle = undefined;
      throw error;
    }
  };
  return {
    refresh,
    find: async (path) => findTarget(platform, await (cycle ?? refresh()), source, path),
    download: async ({ path, file }) => {
      const { root: present } = await (cycle ?? refresh());
      const name = present.consistent_snapshot ? hashedName(path, file) : path;
      const url = name.split('/').map(quoteName).join('/');
      const received = receive(platform, await fetchTarget(url, file.length));
      assertTarget(path, received, file);
      return received.bytes;
    },
  };
}

async function loadAll({ load }: MetadataSource, root: Uint8Array): Promise<Record<string, string>> {
  const texts: Record<string, string> = {};
  const take = async (key: string): Promise<boolean> => {
    const bytes = await load?.(key);
    if (bytes === undefined) return false;
    try {
      texts[key] = fromUtf8(bytes);
      return true;
    } catch {
      // What was damaged can be had again.
      return false;
    }
  };
  for (const key of ['timestamp', 'snapshot', 'targets']) await take(key);
  let { version } = parseEnvelope(root, 'root').signed;
  while (await take(`root.${version + 1}`)) version += 1;
  return texts;
}

/** Names a metadata file, by its version where the repository keeps all of them (TUF 1.0 §6.2), and fetches it. */
async function fetchPinned(
  trusted: TrustedMetadata,
  source: MetadataSource,
  role: string,
  pin: MetaFile | undefined,
): Promise<Uint8Array> {
  if (!pin) throw invalid(`the snapshot does not list the role ${show(role)}`);
  const { version, length = Infinity } = pin;
  const file = `${quoteName(role)}.json`;
  const name = trusted.root.consistent_snapshot ? `${version}.${file}` : file;
  return fetchFile(source, name, Math.min(length, capOf(role)));
}

async function fetchFile(source: MetadataSource, name: string, capBytes: number): Promise<Uint8Array> {
  const bytes = await source.fetchMetadata(name, capBytes);
  if (bytes !== undefined) return bytes;
  throw new NetworkError(
    'ERR_INLAY_HTTP_STATUS',
    `The repository has no file ${show(name)}, which its metadata names; upload all of it.`,
    { details: { name, status: 404 } },
  );
}

/** The name of a target where the repository keeps all versions of it: any of its hashes goes before the file's name. */
function hashedName(path: string, { hashes }: TargetFile): string {
  const hash = hashes['sha256'] ?? hashes['sha512'];
  if (hash === undefined) {
    throw new TrustError(
      'ERR_INLAY_HASH',
      `The file ${show(path)} has no hash of a known kind; publish it with SHA-256.`,
    );
  }
  const slash = path.lastIndexOf('/') + 1;
  return `${path.slice(0, slash)}${hash}.${path.slice(slash)}`;
}

/** Percent-encodes everything but letters, digits and `-._~` (RFC 3986 §2.3). */
function quoteName(name: string): string {
  return encodeURIComponent(name).replace(
    /[!'()*]/g,
    (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}
