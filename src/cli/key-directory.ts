/** The folder of the offline keys: `root.key.json`, `targets.key.json`, and the public metadata beside them. */

import { webcrypto } from 'node:crypto';
import { access, open, readFile, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { toHex } from '../core/bytes.ts';
import { InlayError, ServerError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import { generateKeyPair, openSigner, parseKeyFile, toKeyFile, type Signer } from '../publish/signer.ts';
import { makeFolder } from '../server/folder.ts';

/** Files that may be shown to anyone. */
export type PublicFile = 'root.json' | 'targets.json' | 'verified.json';
/** Offline roles with a key of their own. */
export type OfflineRole = 'root' | 'targets';

/** A folder of offline keys. */
export interface KeyDirectory {
  readonly path: string;
  /**
   * Creates the folder (0700) and both keys (0600).
   * @throws {@link ServerError} `ERR_INLAY_CONFLICT` if there are keys or metadata already; nothing is overwritten.
   */
  create(): Promise<Readonly<Record<OfflineRole, Signer>>>;
  /** Opens a key. @throws {@link ServerError} `ERR_INLAY_NOT_FOUND` if it is not there. */
  signer(role: OfflineRole): Promise<Signer>;
  /** Reads public metadata; `undefined` if it is not there. */
  read(file: PublicFile): Promise<Uint8Array<ArrayBuffer> | undefined>;
  /** Reads `root.json`. @throws {@link ServerError} `ERR_INLAY_NOT_FOUND` if it is not there. */
  root(): Promise<Uint8Array<ArrayBuffer>>;
  /** Replaces public metadata, all or nothing. */
  write(file: PublicFile, bytes: Uint8Array): Promise<void>;
  /** Refuses what {@link create} would refuse. */
  assertVacant(): Promise<void>;
}

/** Opens the folder; it need not exist yet. */
export function openKeyDirectory(path: string, platform: Platform): KeyDirectory {
  const { subtle } = webcrypto;
  const fileOf = (role: OfflineRole): string => join(path, `${role}.key.json`);

  const read = async (file: string): Promise<Uint8Array<ArrayBuffer> | undefined> => {
    try {
      return new Uint8Array(await readFile(file));
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return undefined;
      throw error;
    }
  };

  const assertVacant = async (): Promise<void> => {
    for (const file of [
      fileOf('root'),
      fileOf('targets'),
      join(path, 'root.json'),
      join(path, 'targets.json'),
    ]) {
      if (!(await exists(file))) continue;
      const isInstallable =
        (await exists(join(path, 'root.json'))) && (await exists(join(path, 'targets.json')));
      throw new ServerError(
        'ERR_INLAY_CONFLICT',
        `${file} exists and is not overwritten; choose another folder with --keys` +
          (isInstallable ? ', or send what is there to the server with `inlay keys install`.' : '.'),
        { details: { file } },
      );
    }
  };

  const createKey = async (role: OfflineRole): Promise<Signer> => {
    const keyFile = toKeyFile(await generateKeyPair(subtle));
    await writeDurably(fileOf(role), `${JSON.stringify(keyFile)}\n`, 'wx', 0o600);
    return openSigner({ subtle, platform }, keyFile);
  };

  return {
    path,
    assertVacant,
    create: async () => {
      await makeFolder(path);
      await assertVacant();
      return { root: await createKey('root'), targets: await createKey('targets') };
    },
    signer: async (role) => {
      const bytes = await read(fileOf(role));
      if (!bytes) throw missing(fileOf(role));
      const keyFile = parseKeyFile(new TextDecoder().decode(bytes), fileOf(role));
      return openSigner({ subtle, platform }, keyFile);
    },
    read: (file) => read(join(path, file)),
    root: async () => {
      const bytes = await read(join(path, 'root.json'));
      if (!bytes) throw missing(join(path, 'root.json'));
      return bytes;
    },
    write: async (file, bytes) => {
      const part = join(path, `${file}.${toHex(platform.randomBytes(6))}.part`);
      await writeDurably(part, bytes, 'w', 0o644);
      await rename(part, join(path, file));
    },
  };
}

async function writeDurably(
  path: string,
  content: string | Uint8Array,
  flags: 'w' | 'wx',
  mode: number,
): Promise<void> {
  const file = await open(path, flags, mode);
  try {
    await file.writeFile(content);
    await file.sync();
  } finally {
    await file.close();
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

function codeOf(error: unknown): unknown {
  return (error as { code?: unknown } | null)?.code;
}
