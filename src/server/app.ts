import { Hono, type Context } from 'hono';
import type { ContentfulStatusCode } from 'hono/utils/http-status';
import { isInlayError, type ErrorCode } from '../core/errors.ts';
import { createCatalog, type Catalog, type CatalogOptions } from './catalog.ts';
import { sendProblem } from './respond.ts';
import { createAdminRoutes } from './routes/admin.ts';
import { createDeviceRoutes } from './routes/device.ts';

/** Options of {@link createSyncApp}. */
export interface SyncAppOptions extends CatalogOptions {
  /** Largest file that is taken in, bytes. Default 4 GiB. */
  readonly maxBlobBytes?: number;
  /** Gets errors of the server itself, for its log. Default: they go to standard error. */
  readonly onError?: (error: unknown) => void;
}

/**
 * Creates the sync server as a Hono app: the device plane and the admin plane of `docs/protocol.md`. It signs online
 * metadata again when a device asks for it near its expiry.
 */
export function createSyncApp(options: SyncAppOptions): Hono {
  return createAppOf(createCatalog(options), options);
}

/** Creates the app over a catalog that others use as well. */
export function createAppOf(catalog: Catalog, options: SyncAppOptions): Hono {
  const { repository, blobs, platform, maxBlobBytes = 4 * 1024 ** 3, onError = logError } = options;
  const app = new Hono();
  app.get('/healthz', (c) => c.text('ok'));
  app.route('/v1', createDeviceRoutes({ catalog, repository, blobs, platform, onError }));
  app.route('/v1/admin', createAdminRoutes({ catalog, repository, blobs, platform, maxBlobBytes }));
  app.notFound((c) => sendProblem(c, 404, 'ERR_INLAY_NOT_FOUND', 'There is nothing at this address.'));
  app.onError((error, c) => describeError(c, error, onError));
  return app;
}

/** Status by code; what is not here is the server's own fault. */
const statuses: Readonly<Partial<Record<ErrorCode, ContentfulStatusCode>>> = {
  ERR_INLAY_NETWORK: 400,
  ERR_INLAY_UNAUTHORIZED: 401,
  ERR_INLAY_NOT_FOUND: 404,
  ERR_INLAY_CONFLICT: 409,
  ERR_INLAY_LENGTH: 413,
  ERR_INLAY_REFUSED: 422,
  ERR_INLAY_STORE_MISMATCH: 422,
  ERR_INLAY_METADATA_INVALID: 422,
  ERR_INLAY_SIGNATURE: 422,
  ERR_INLAY_HASH: 422,
  ERR_INLAY_ROLLBACK: 409,
  ERR_INLAY_EXPIRED: 422,
  ERR_INLAY_STORE_FULL: 507,
};

function describeError(c: Context, error: unknown, onError: (error: unknown) => void): Response {
  if (isInlayError(error)) {
    const status = statuses[error.code] ?? 500;
    if (status >= 500) onError(error);
    return sendProblem(c, status, error.code, error.message);
  }
  onError(error);
  return sendProblem(c, 500, 'ERR_INLAY_SERVER', 'The server failed; its log says why.');
}

function logError(error: unknown): void {
  console.error(error);
}
