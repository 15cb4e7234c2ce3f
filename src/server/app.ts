import { getConnInfo } from '@hono/node-server/conninfo';
import { Hono, type Context } from 'hono';
import type { ContentfulStatusCode } from 'hono/utils/http-status';
import type { Kysely } from 'kysely';
import { isInlayError, type ErrorCode } from '../core/errors.ts';
import { createGate, type AccessLimits } from './auth.ts';
import { createCatalog, type Catalog, type CatalogOptions } from './catalog.ts';
import type { Schema } from './db/schema.ts';
import { createReportRoutes } from './ingest/routes.ts';
import { createOidc, type OidcOptions } from './oidc.ts';
import { sendProblem } from './respond.ts';
import { createAdminRoutes } from './routes/admin.ts';
import { createDashboardRoutes } from './routes/dashboard.ts';
import { createDeviceRoutes } from './routes/device.ts';
import { createServices, type Services } from './services.ts';
import type { BlobStorage } from './storage/blobs.ts';

/** Options of {@link createSyncApp}. */
export interface SyncAppOptions extends CatalogOptions {
  /** What the repository is of; keys and telemetry are in it as well. */
  readonly db: Kysely<Schema>;
  readonly blobs: BlobStorage;
  /** Largest file that is taken in, bytes. Default 4 GiB. */
  readonly maxBlobBytes?: number;
  /** Gets errors of the server itself, for its log. Default: they go to standard error. */
  readonly onError?: (error: unknown) => void;
  /** Lets people in who sign in at a provider. Default: keys only. */
  readonly oidc?: OidcOptions;
  /** How often somebody may ask. */
  readonly limits?: Partial<AccessLimits>;
  /** Whether devices need a key of the role `device` to report. Default false. */
  readonly requireDeviceKey?: boolean;
  /** Whether the last address of `X-Forwarded-For` is that of the client, as behind a proxy. Default false. */
  readonly trustProxy?: boolean;
  /** Folder of the dashboard's files. Default: there is none. */
  readonly dashboardDir?: string;
  /** Version of the server, for the API's document. Default `0`. */
  readonly version?: string;
  /** Where the server is that signs. Default: it is this one. */
  readonly signsAt?: string;
}

/**
 * Creates the sync server as a Hono app: the device plane and the admin plane of `docs/protocol.md`. It signs online
 * metadata again when a device asks for it near its expiry. Its jobs do not run; see `startServer`.
 */
export function createSyncApp(options: SyncAppOptions): Hono {
  const catalog = createCatalog(options);
  return createAppOf(catalog, createServices({ ...withDefaults(options), catalog }), options);
}

/** Creates the app over a catalog and services that others use as well. */
export function createAppOf(
  catalog: Catalog,
  services: Services,
  options: Omit<SyncAppOptions, 'signer'>,
): Hono {
  const { repository, blobs, platform, onError } = withDefaults(options);
  const { oidc, limits, trustProxy = false, dashboardDir, version = '0', signsAt } = options;
  const gate = createGate({
    tokens: services.tokens,
    oidc: oidc && createOidc(oidc, platform),
    platform,
    limits,
    addressOf: (c) => addressOf(c, trustProxy),
  });
  const app = new Hono();
  app.get('/healthz', (c) => c.text('ok'));
  app.route('/v1', createDeviceRoutes({ catalog, repository, blobs, platform, onError }));
  const checks = [gate.reports, ...(options.requireDeviceKey ? [gate.requireRole('device')] : [])];
  app.route('/v1', createReportRoutes(services.ingest, checks));
  app.use('/metrics', gate.requireRole('viewer'));
  app.route('/', services.metrics);
  app.route('/v1/admin', createAdminRoutes({ endpoints: services.endpoints, gate, version, signsAt }));
  if (dashboardDir !== undefined) app.route('/dashboard', createDashboardRoutes(dashboardDir));
  app.notFound((c) => sendProblem(c, 404, 'ERR_INLAY_NOT_FOUND', 'There is nothing at this address.'));
  app.onError((error, c) => describeError(c, error, onError));
  return app;
}

function withDefaults<Options extends Pick<SyncAppOptions, 'maxBlobBytes' | 'onError'>>(
  options: Options,
): Options & Required<Pick<SyncAppOptions, 'maxBlobBytes' | 'onError'>> {
  const { maxBlobBytes = 4 * 1024 ** 3, onError = logError } = options;
  return { ...options, maxBlobBytes, onError };
}

/** Where a request comes from; `''` where that is not known. */
function addressOf(c: Context, trustProxy: boolean): string {
  const forwarded = trustProxy ? c.req.header('x-forwarded-for')?.split(',').at(-1)?.trim() : undefined;
  if (forwarded !== undefined && forwarded !== '') return forwarded;
  const { incoming } = (c.env ?? {}) as { readonly incoming?: unknown };
  return incoming === undefined ? '' : (getConnInfo(c).remote.address ?? '');
}

/** Status by code; what is not here is the server's own fault. */
const statuses: Readonly<Partial<Record<ErrorCode, ContentfulStatusCode>>> = {
  ERR_INLAY_NETWORK: 400,
  ERR_INLAY_UNAUTHORIZED: 401,
  ERR_INLAY_FORBIDDEN: 403,
  ERR_INLAY_NOT_FOUND: 404,
  ERR_INLAY_CONFLICT: 409,
  ERR_INLAY_GONE: 410,
  ERR_INLAY_LENGTH: 413,
  ERR_INLAY_REPORT_INVALID: 422,
  ERR_INLAY_REFUSED: 422,
  ERR_INLAY_STORE_MISMATCH: 422,
  ERR_INLAY_METADATA_INVALID: 422,
  ERR_INLAY_SIGNATURE: 422,
  ERR_INLAY_HASH: 422,
  ERR_INLAY_ROLLBACK: 409,
  ERR_INLAY_EXPIRED: 422,
  ERR_INLAY_RATE_LIMITED: 429,
  ERR_INLAY_BUSY: 429,
  ERR_INLAY_STORE_FULL: 507,
};

function describeError(c: Context, error: unknown, onError: (error: unknown) => void): Response {
  if (isInlayError(error)) {
    const status = statuses[error.code] ?? 500;
    const { retryAfterS } = error.details;
    if (status === 429 && typeof retryAfterS === 'number') c.header('Retry-After', String(retryAfterS));
    // RFC 6750 §3.1.
    if (status === 403) c.header('WWW-Authenticate', 'Bearer error="insufficient_scope"');
    if (status >= 500) onError(error);
    return sendProblem(c, status, error.code, error.message);
  }
  onError(error);
  return sendProblem(c, 500, 'ERR_INLAY_SERVER', 'The server failed; its log says why.');
}

function logError(error: unknown): void {
  console.error(error);
}
