/** The folder of the offline keys: `root.key.json`, `targets.key.json`, and the public metadata beside them. */

import { webcrypto } from 'node:crypto';
import { access, link, open, readdir, readFile, rename, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { fromUtf8, toHex } from '../core/bytes.ts';
import { isInlayError, ServerError, TrustError, type InlayError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import { formatPublicKey, parsePublicKey } from '../publish/key-public.ts';
import type { DraftFile, KeyFolderFile, RotationKeys } from '../publish/root-rotate.ts';
import type { OfflineRole } from '../publish/root.ts';
import { sealKeyFile } from '../publish/seal.ts';
import { generateKeyPair, openSigner, toKeyFile, type Signer } from '../publish/signer.ts';
import { makeFolder } from '../server/folder.ts';
import type { NamedKey } from '../trust/keys.ts';
import { parseEnvelope } from '../trust/parse.ts';
import {
  createKeySources,
  missingKey,
  nodeSealParts,
  roleOfKeyFile,
  type KeySource,
} from './keys-sources.ts';
import { createPassphrases, type Passphrases } from './passphrase.ts';

export type { OfflineRole } from '../publish/root.ts';

/** Files that may be shown to anyone. */
export type PublicFile = KeyFolderFile;

/** A public key of somebody else, that a next root may list. */
export interface AddedKey extends NamedKey {
  readonly role: OfflineRole;
}

/** A folder of offline keys. */
export interface KeyDirectory extends RotationKeys {
  readonly path: string;
  /**
   * Creates the folder (0700) and both keys (0600).
   * @param passphrase seals the private halves; without it they are written plain.
   * @throws {@link ServerError} `ERR_INLAY_CONFLICT` if there are keys or metadata already; nothing is overwritten.
   */
  create(passphrase?: string): Promise<Readonly<Record<OfflineRole, Signer>>>;
  /** Creates one more key, and the folder if there is none. */
  createKey(role: OfflineRole, passphrase: string | undefined): Promise<Signer>;
  /**
   * Opens a key of a role: one that `root.json` gives it, from the folder, the environment or a program.
   * @throws {@link ServerError} `ERR_INLAY_NOT_FOUND` if none is at hand.
   */
  signer(role: OfflineRole): Promise<Signer>;
  /** Opens as many keys of a role as its threshold asks for. Otherwise as {@link KeyDirectory.signer}. */
  signersOf(role: OfflineRole): Promise<readonly Signer[]>;
  /** Lists keys of the folder and of the environment, without opening them. */
  stored(): Promise<readonly KeySource[]>;
  /** Lists keys of programs. */
  commands(): Promise<readonly KeySource[]>;
  /** Lists public keys that were added. */
  added(): Promise<readonly AddedKey[]>;
  /** Keeps a public key for the next root. */
  add(role: OfflineRole, key: NamedKey): Promise<void>;
  /** Reads public metadata; `undefined` if it is not there. @throws {@link TrustError} if `root.json` is damaged. */
  read(file: PublicFile): Promise<Uint8Array<ArrayBuffer> | undefined>;
  /**
   * Reads `root.json`.
   * @throws {@link ServerError} `ERR_INLAY_NOT_FOUND` if it is not there, {@link TrustError}
   * `ERR_INLAY_METADATA_INVALID` if it is damaged.
   */
  root(): Promise<Uint8Array<ArrayBuffer>>;
  /** Replaces public metadata, all or nothing. */
  write(file: PublicFile, bytes: Uint8Array): Promise<void>;
  /** Refuses what {@link KeyDirectory.create} would refuse. */
  assertVacant(): Promise<void>;
}

/** Where a folder's keys may come from besides its own files. */
export interface KeySurroundings {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Folder in which programs are run. */
  readonly cwd: string;
  readonly passphrases: Passphrases;
}

const draftName = /^(?:root|targets)\.\d{1,9}\.draft\.json$/;
const addedName = /^(root|targets)-[0-9a-f]{8}\.public\.json$/;

/**
 * Opens the folder; it need not exist yet.
 * @param surroundings default: only the folder's own plain files.
 */
export function openKeyDirectory(
  path: string,
  platform: Platform,
  surroundings: KeySurroundings = {
    env: {},
    cwd: path,
    passphrases: createPassphrases({}, { env: {}, cwd: path }),
  },
): KeyDirectory {
  const { subtle } = webcrypto;
  const sources = createKeySources({ path, platform, ...surroundings });
  const fileOf = (role: OfflineRole): string => join(path, `${role}.key.json`);

  const read = async (file: string): Promise<Uint8Array<ArrayBuffer> | undefined> => {
    try {
      return new Uint8Array(await readFile(join(path, file)));
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return undefined;
      throw error;
    }
  };

  const names = async (): Promise<readonly string[]> => {
    try {
      return (await readdir(path)).sort();
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return [];
      throw error;
    }
  };

  /** Writes a file whole and then gives it its name, which no other file may have for `isNew`. */
  const write = async (
    file: string,
    content: string | Uint8Array,
    { mode = 0o644, isNew = false } = {},
  ): Promise<void> => {
    const target = join(path, file);
    const part = `${target}.${toHex(platform.randomBytes(6))}.part`;
    await writeDurably(part, content, mode);
    try {
      if (isNew) await nameAnew(part, target);
      else await rename(part, target);
    } catch (error) {
      await unlink(part).catch(() => undefined);
      throw error;
    }
    await syncFolder(path);
  };

  const assertVacant = async (): Promise<void> => {
    const isThere = await names();
    const taken = isThere.find(
      (name) => roleOfKeyFile(name) !== undefined || name === 'root.json' || name === 'targets.json',
    );
    if (taken === undefined) return;
    const isInstallable = isThere.includes('root.json') && isThere.includes('targets.json');
    throw new ServerError(
      'ERR_INLAY_CONFLICT',
      `${join(path, taken)} exists and is not overwritten; choose another folder with --keys` +
        (isInstallable ? ', or send what is there to the server with `inlay keys install`.' : '.'),
      { details: { file: join(path, taken) } },
    );
  };

  const createKey = async (role: OfflineRole, passphrase: string | undefined): Promise<Signer> => {
    await makeFolder(path);
    const keyFile = toKeyFile(await generateKeyPair(subtle));
    const signer = await openSigner({ subtle, platform }, keyFile);
    const content =
      passphrase === undefined ? keyFile : await sealKeyFile(nodeSealParts(platform), keyFile, passphrase);
    const isFirst = !(await exists(fileOf(role)));
    const name = isFirst ? `${role}.key.json` : `${role}-${signer.keyid.slice(0, 8)}.key.json`;
    await write(name, `${JSON.stringify(content)}\n`, { mode: 0o600, isNew: true });
    return signer;
  };

  /** Reads `root.json` and makes sure that it is one: everything else is verified by it. */
  const readRoot = async (): Promise<Uint8Array<ArrayBuffer> | undefined> => {
    const bytes = await read('root.json');
    try {
      if (bytes) parseEnvelope(bytes, 'root');
    } catch (cause) {
      if (!isInlayError(cause)) throw cause;
      throw damaged(join(path, 'root.json'), cause);
    }
    return bytes;
  };

  const root = async (): Promise<Uint8Array<ArrayBuffer>> => {
    const bytes = await readRoot();
    if (!bytes) throw missing(join(path, 'root.json'));
    return bytes;
  };

  /** Opens up to as many keys of a role as its threshold asks for, one after the other: each may ask for a passphrase. */
  const openOf = async (role: OfflineRole, atMost = Infinity): Promise<[Signer[], threshold: number]> => {
    const bytes = await readRoot();
    const given = bytes && parseEnvelope(bytes, 'root').signed.roles[role];
    const threshold = given?.threshold ?? 1;
    const found = new Map<string, KeySource>();
    const unlisted: KeySource[] = [];
    for (const list of [sources.stored, sources.commands]) {
      if (found.size >= threshold) break;
      for (const source of await list()) {
        if (given ? !given.keyids.includes(source.keyid) : source.role !== role) {
          if (source.role === role) unlisted.push(source);
        } else if (!found.has(source.keyid)) found.set(source.keyid, source);
      }
    }
    // A machine that was given the next key may still have the root before it; the server has the last word.
    const chosen = found.size > 0 ? [...found.values()] : unlisted.slice(0, 1);
    const signers: Signer[] = [];
    for (const source of chosen.slice(0, Math.min(threshold, atMost))) signers.push(await source.open());
    if (signers.length === 0) throw missingKey(role, path);
    return [signers, threshold];
  };

  const signersOf = async (role: OfflineRole): Promise<readonly Signer[]> => {
    const [signers, threshold] = await openOf(role);
    if (signers.length >= threshold) return signers;
    throw new ServerError(
      'ERR_INLAY_NOT_FOUND',
      `The role ${role} needs ${threshold} signatures, and only ${signers.length} of its keys are at hand; ` +
        'bring the others here, or lower the threshold with `inlay keys rotate --targets-threshold`.',
      { details: { role, threshold, atHand: signers.length } },
    );
  };

  const retire = async (what: DraftFile | { readonly keyid: string }): Promise<void> => {
    const moved = typeof what === 'string' ? [what] : await filesOf(what.keyid);
    if (moved.length === 0) return;
    const folder = join(path, 'retired');
    await makeFolder(folder);
    for (const name of moved) {
      const tag = typeof what === 'string' ? toHex(platform.randomBytes(4)) : what.keyid.slice(0, 8);
      const plain = name.replace(/^(root|targets)(-[0-9a-z]+)?\./, (_, role: string) => `${role}-${tag}.`);
      await rename(join(path, name), join(folder, plain));
    }
    await syncFolder(folder);
    await syncFolder(path);
  };

  const filesOf = async (keyid: string): Promise<readonly string[]> => {
    const own = (await sources.stored()).filter((source) => source.kind === 'file' && source.keyid === keyid);
    const others = (await names()).filter(
      (name) => addedName.test(name) && name.includes(`-${keyid.slice(0, 8)}.`),
    );
    return [...own.map(({ where }) => where), ...others];
  };

  return {
    path,
    assertVacant,
    createKey,
    create: async (passphrase) => {
      await makeFolder(path);
      await assertVacant();
      return { root: await createKey('root', passphrase), targets: await createKey('targets', passphrase) };
    },
    signersOf,
    signer: async (role) => {
      const [[signer]] = await openOf(role, 1);
      if (!signer) throw missingKey(role, path);
      return signer;
    },
    signers: sources.signers,
    stored: sources.stored,
    commands: sources.commands,
    added: async () => {
      const keys: AddedKey[] = [];
      for (const name of await names()) {
        const role = addedName.exec(name)?.[1] as OfflineRole | undefined;
        const bytes = role && (await read(name));
        if (role && bytes)
          keys.push({ role, ...parsePublicKey(platform, fromUtf8(bytes), join(path, name)) });
      }
      return keys;
    },
    add: async (role, key) => {
      await makeFolder(path);
      await write(`${role}-${key.keyid.slice(0, 8)}.public.json`, formatPublicKey(key));
    },
    read: (file) => (file === 'root.json' ? readRoot() : read(file)),
    root,
    write: (file, bytes) => write(file, bytes),
    drafts: async () => (await names()).filter((name): name is DraftFile => draftName.test(name)),
    remove: async (draft) => {
      await unlink(join(path, draft)).catch((error: unknown) => {
        if (codeOf(error) !== 'ENOENT') throw error;
      });
    },
    retire,
  };
}

/** Replaces a file that anyone may read, all or nothing. */
export async function replaceFile(
  path: string,
  bytes: Uint8Array,
  platform: Pick<Platform, 'randomBytes'>,
): Promise<void> {
  const part = `${path}.${toHex(platform.randomBytes(6))}.part`;
  await writeDurably(part, bytes, 0o644);
  await rename(part, path);
}

async function writeDurably(path: string, content: string | Uint8Array, mode: number): Promise<void> {
  const file = await open(path, 'wx', mode);
  try {
    await file.writeFile(content);
    await file.sync();
  } finally {
    await file.close();
  }
}

/** Gives a file a name that is free: a rename would replace what has it. */
async function nameAnew(part: string, target: string): Promise<void> {
  try {
    await link(part, target);
    await unlink(part);
  } catch (error) {
    if (codeOf(error) === 'EEXIST' || (await exists(target))) {
      throw new ServerError(
        'ERR_INLAY_CONFLICT',
        `${target} exists and is not overwritten; run the command again.`,
      );
    }
    // Some file systems have no second names.
    await rename(part, target);
  }
}

/** A new name is safe once its folder is; systems that cannot open folders do that by themselves. */
async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r').catch(() => undefined);
  try {
    await folder?.sync().catch(() => undefined);
  } finally {
    await folder?.close();
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch {
    return false;
  }
}

function missing(path: string): InlayError {
  return new ServerError(
    'ERR_INLAY_NOT_FOUND',
    `There is no ${path}; create keys with \`inlay keys init\`, or name their folder with --keys.`,
    { details: { path } },
  );
}

function damaged(path: string, cause: InlayError): InlayError {
  return new TrustError(
    'ERR_INLAY_METADATA_INVALID',
    `The file ${path} is damaged; put a whole one in its place: from a backup of the folder, from the newest root.N.json ` +
      'beside it, or from your app, which embeds it.',
    { cause, details: { path } },
  );
}

function codeOf(error: unknown): unknown {
  return (error as { code?: unknown } | null)?.code;
}
