import { join, resolve } from 'node:path';
import { InlayError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import { nodePlatform } from '../platform-node.ts';
import type { NamedKey } from '../trust/keys.ts';
import { createAppOf } from './app.ts';
import { createToken, hashToken } from './auth.ts';
import { createCatalog } from './catalog.ts';
import { createRepository } from './db/repository.ts';
import { openSqlite } from './db/sqlite.ts';
import { makeFolder } from './folder.ts';
import { listen } from './listen.ts';
import { lockDirectory } from './lock.ts';
import { openInlineSigner } from './signer/open.ts';
import { spawnSigner } from './signer/spawn.ts';
import { expiryWarnings } from './status.ts';
import { openDiskStorage } from './storage/disk.ts';

/** Options of {@link startServer}. */
export interface StartServerOptions {
  /** Address to listen on. Default `127.0.0.1`: only this machine; put a TLS proxy before anything wider. */
  readonly host?: string;
  /** Default 8787; 0 takes any free port. */
  readonly port?: number;
  /** Folder of the database, the blobs and the online key; created if missing. Default `./inlay-data`. */
  readonly dataDir?: string;
  /** Replaces the admin token, for when it was lost. Default false. */
  readonly newToken?: boolean;
  /** Largest file that is taken in, bytes. Default 4 GiB. */
  readonly maxBlobBytes?: number;
  /**
   * Where the online key is kept: in a process of its own, which checks what it signs, or `inline`, where no process may
   * be started. Default `process`.
   */
  readonly signer?: 'process' | 'inline';
  /** Environment of the signer, with its passphrase or its command. Default: that of this process. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Default: Node's. A signer in a process of its own has Node's in any case. */
  readonly platform?: Platform;
  /** Gets errors of the server itself. Default: they go to standard error. */
  readonly onError?: (error: unknown) => void;
  /** Gets what an administrator should see to, such as metadata that expires soon; once a day. Default: as `onError`. */
  readonly onWarning?: (message: string) => void;
}

/** A sync server that listens. */
export interface RunningServer {
  /** Where it listens, such as `http://127.0.0.1:8787`. */
  readonly url: string;
  /** The admin token, at the first start or when a new one was asked for. It is not stored: show it now. */
  readonly token?: string;
  /** The server's public key, which root and targets name. */
  readonly onlineKey: NamedKey;
  /** Process that holds the online key; `undefined` where that is this one, or while it is started again. */
  readonly signerPid: number | undefined;
  /** Answers requests in flight, for up to 5 s, then stops. Safe to call twice. */
  close(): Promise<void>;
}

/** Online metadata is looked at this often; the first device after an expiry would have to wait for it otherwise. */
const renewEveryMs = 15 * 60_000;
const warnEveryMs = 24 * 3_600_000;

/**
 * Starts a sync server on a data directory. The directory is used by one server at a time.
 * @throws {@link ServerError} `ERR_INLAY_CONFLICT` if another server uses the directory or the port.
 */
export async function startServer(options: StartServerOptions = {}): Promise<RunningServer> {
  const { host = '127.0.0.1', port = 8787, newToken = false, maxBlobBytes } = options;
  const { platform = nodePlatform(), onError = logError, onWarning = logWarning } = options;
  const { env = process.env, signer: place = 'process' } = options;
  const directory = resolve(options.dataDir ?? 'inlay-data');
  const undo: (() => unknown)[] = [];
  /** Takes everything down again, last first. */
  const release = async (): Promise<void> => {
    for (const step of undo.splice(0).reverse()) await step();
  };

  try {
    await makeFolder(directory);
    undo.push(await lockDirectory(directory));
    const spawned =
      place === 'process' ? await spawnSigner({ directory, platform, onError, env }) : undefined;
    const signer = spawned ?? (await openInlineSigner(directory, platform, env));
    undo.push(() => signer.close());
    const db = await openSqlite(join(directory, 'inlay.db'));
    const repository = createRepository(db, () => platform.now());
    undo.push(() => repository.close());
    const blobs = await openDiskStorage({ directory: join(directory, 'blobs'), platform });
    const parts = {
      repository,
      blobs,
      signer,
      platform,
      onError,
      ...(maxBlobBytes !== undefined && { maxBlobBytes }),
    };
    const catalog = createCatalog(parts);
    const app = createAppOf(catalog, parts);

    let stopped = false;
    let cancelTimer = (): void => undefined;
    let renewal = Promise.resolve();
    let warnedAt = Number.NEGATIVE_INFINITY;
    const renew = async (): Promise<void> => {
      await catalog.renew().catch(onError);
      const now = platform.now();
      if (now - warnedAt >= warnEveryMs) {
        const warnings = await catalog.state().then(
          (state) => expiryWarnings(state, now),
          () => [],
        );
        for (const { message } of warnings) onWarning(message);
        if (warnings.length > 0) warnedAt = now;
      }
      if (!stopped) cancelTimer = platform.setTimer(schedule, renewEveryMs);
    };
    const schedule = (): void => {
      renewal = renew();
    };
    undo.push(() => {
      stopped = true;
      cancelTimer();
      return renewal;
    });
    schedule();
    await renewal;

    const listening = await listen(app, { host, port, platform, onError });
    undo.push(() => listening.close());

    // Only now, so that a start that fails does not use the one token up.
    let token: string | undefined;
    if (newToken || (await repository.tokenHashes()).length === 0) {
      token = createToken(platform);
      await repository.replaceTokens(hashToken(token));
    }

    let closing: Promise<void> | undefined;
    return {
      url: listening.url,
      ...(token !== undefined && { token }),
      onlineKey: catalog.onlineKey,
      get signerPid() {
        return spawned?.pid;
      },
      close: () => (closing ??= release()),
    };
  } catch (error) {
    await release();
    throw error;
  }
}

function logWarning(message: string): void {
  console.warn(message);
}

/** What the server says itself in one line; anything else with all that is known of it. */
function logError(error: unknown): void {
  console.error(
    error instanceof InlayError && error.cause === undefined ? `${error.message} (${error.code})` : error,
  );
}
