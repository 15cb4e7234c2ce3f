import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { InlayError, ServerError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import { nodePlatform } from '../platform-node.ts';
import type { NamedKey } from '../trust/keys.ts';
import { createAppOf, type SyncAppOptions } from './app.ts';
import { createCatalog, type Catalog } from './catalog.ts';
import { isPostgresUrl, openDatabase } from './db/open.ts';
import { createRepository } from './db/repository.ts';
import { makeFolder } from './folder.ts';
import { createJobRunner } from './jobs/runner.ts';
import { listen } from './listen.ts';
import { lockDirectory } from './lock.ts';
import { readOidcOptions } from './oidc.ts';
import { createReplicaCatalog, leaveOnlineKey, readOnlineKey } from './replica.ts';
import { createServices } from './services.ts';
import { openInlineSigner } from './signer/open.ts';
import { spawnSigner, type SpawnedSigner } from './signer/spawn.ts';
import { expiryWarnings } from './status.ts';
import type { BlobStorage } from './storage/blobs.ts';
import { openDiskStorage } from './storage/disk.ts';

/** Options of {@link startServer}. */
export interface StartServerOptions extends Pick<
  SyncAppOptions,
  'maxBlobBytes' | 'oidc' | 'limits' | 'requireDeviceKey' | 'trustProxy' | 'dashboardDir' | 'onError'
> {
  /** Address to listen on. Default `127.0.0.1`: only this machine; put a TLS proxy before anything wider. */
  readonly host?: string;
  /** Default 8787; 0 takes any free port. */
  readonly port?: number;
  /** Folder of the database, the blobs and the online key; created if missing. Default `./inlay-data`. */
  readonly dataDir?: string;
  /** `postgres://…` of a database that is not in the folder. Default: `INLAY_DATABASE_URL` of `env`, or the folder. */
  readonly database?: string;
  /**
   * `primary`: it signs, and runs the jobs. `replica`: it serves devices, takes reports and answers queries beside a
   * primary, from the same PostgreSQL and S3; what has to be signed it sends to the primary. Default `primary`.
   */
  readonly role?: 'primary' | 'replica';
  /** Where the primary is, for what a replica refuses. */
  readonly primaryUrl?: string;
  /** Makes a new key of an administrator and ends the others, for when they were lost. Default false. */
  readonly newToken?: boolean;
  /** How often the guards look at the rollouts, milliseconds. Default 60,000. */
  readonly lookEveryMs?: number;
  /** Where metrics are pushed over OTLP/HTTP. Default: nowhere; `GET /metrics` has them in any case. */
  readonly otlpUrl?: string;
  /** Where people reach this server, for the links in notifications. Default: they have none. */
  readonly publicUrl?: string;
  /** Lets notifications of alerts go to this machine. Default false. */
  readonly allowLoopback?: boolean;
  /**
   * Where the online key is kept: in a process of its own, which checks what it signs, or `inline`, where no process may
   * be started. Default `process`.
   */
  readonly signer?: 'process' | 'inline';
  /** Environment of the server: its signer's passphrase, database, storage and provider. Default: that of this process. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Default: Node's. A signer in a process of its own has Node's in any case. */
  readonly platform?: Platform;
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
  const { host = '127.0.0.1', port = 8787, newToken = false, role = 'primary' } = options;
  const { platform = nodePlatform(), onError = logError, onWarning = logWarning } = options;
  const { env = process.env, signer: place = 'process' } = options;
  const directory = resolve(options.dataDir ?? 'inlay-data');
  const undo: (() => unknown)[] = [];
  /** Takes everything down again, last first. */
  const release = async (): Promise<void> => {
    for (const step of undo.splice(0).reverse()) await step();
  };

  try {
    const { database = env['INLAY_DATABASE_URL'] || join(directory, 'inlay.db') } = options;
    const isS3 = (env['INLAY_S3_ENDPOINT'] ?? '') !== '';
    const isExternal = isPostgresUrl(database) && isS3;
    if (role === 'replica' && !isExternal) throw noReplica();
    let spawned: SpawnedSigner | undefined;
    if (role === 'primary') {
      await makeFolder(directory);
      undo.push(await lockDirectory(directory));
    }
    const { db } = await openDatabase(database);
    const repository = createRepository(db, () => platform.now());
    undo.push(() => repository.close());
    const blobs: BlobStorage = isS3
      ? await (await import('./storage/s3.ts')).openS3Storage({ env, platform })
      : await openDiskStorage({ directory: join(directory, 'blobs'), platform });

    let catalog: Catalog;
    if (role === 'primary') {
      spawned = place === 'process' ? await spawnSigner({ directory, platform, onError, env }) : undefined;
      const signer = spawned ?? (await openInlineSigner(directory, platform, env));
      undo.push(() => signer.close());
      catalog = createCatalog({ repository, blobs, signer, platform });
      const known = await readOnlineKey(db).catch(() => undefined);
      if (known !== undefined && known.keyid !== catalog.onlineKey.keyid) {
        onWarning(
          `The server that used this database before had the online key ${known.keyid.slice(0, 8)}, and this one has ${catalog.onlineKey.keyid.slice(0, 8)}: start it with the data folder of that one, or sign metadata that names the new key.`,
        );
      }
      await leaveOnlineKey(db, catalog.onlineKey);
    } else {
      catalog = createReplicaCatalog(repository, await readOnlineKey(db));
    }
    const { maxBlobBytes = 4 * 1024 ** 3, oidc = readOidcOptions(env) } = options;
    const { lookEveryMs, otlpUrl, publicUrl, allowLoopback = false } = options;
    const services = createServices({
      ...{ db, catalog, repository, blobs, platform, maxBlobBytes, onError, env },
      allowLoopback,
      ...(lookEveryMs !== undefined && { lookEveryMs }),
      ...(otlpUrl !== undefined && { otlpUrl }),
      ...(publicUrl !== undefined && { publicUrl: publicUrl.replace(/\/+$/, '') }),
    });
    undo.push(() => services.close());
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

    if (role === 'primary') {
      const runner = createJobRunner({ db, platform, jobs: services.jobs, onError });
      undo.push(() => runner.close());
      runner.start();
    }
    const app = createAppOf(catalog, services, {
      ...options,
      ...{ db, repository, blobs, platform, maxBlobBytes, onError },
      ...(oidc && { oidc }),
      dashboardDir: options.dashboardDir ?? bundledDashboard(),
      version: packageVersion(),
      ...(role === 'replica' && { signsAt: options.primaryUrl ?? 'the primary' }),
    });
    const listening = await listen(app, { host, port, platform, onError });
    undo.push(() => listening.close());

    // Only now, so that a start that fails does not use the one token up.
    let token: string | undefined;
    if (newToken || (role === 'primary' && (await services.tokens.list()).length === 0)) {
      ({ token } = await services.tokens.reset());
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

function noReplica(): ServerError {
  return new ServerError(
    'ERR_INLAY_REFUSED',
    'A replica shares all it has; set INLAY_DATABASE_URL to PostgreSQL, and INLAY_S3_ENDPOINT and its fellows.',
  );
}

/** What the package brings along, from `src` and from `dist`. */
function bundledDashboard(): string {
  return fileURLToPath(new URL('../../dist/dashboard', import.meta.url));
}

function packageVersion(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { readonly version: string }).version;
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
