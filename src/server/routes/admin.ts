import { Hono } from 'hono';
import { ServerError } from '../../core/errors.ts';
import { metadataCaps } from '../../trust/client.ts';
import { requireToken, type AdminVariables } from '../auth.ts';
import { openBody, readBody, readJsonObject } from '../body.ts';
import type { Catalog } from '../catalog.ts';
import type { Repository } from '../db/repository.ts';
import { createStatus } from '../status.ts';
import type { BlobStorage } from '../storage/blobs.ts';

/** What the admin plane is made of. */
export interface AdminRoutesOptions {
  readonly catalog: Catalog;
  readonly repository: Repository;
  readonly blobs: BlobStorage;
  /** Identifier of the server's own key. */
  readonly keyid: string;
  /** Largest file that is taken in, bytes. */
  readonly maxBlobBytes: number;
}

/** Creates the routes below `/v1/admin`; all of them need a token. */
export function createAdminRoutes(options: AdminRoutesOptions): Hono<{ Variables: AdminVariables }> {
  const { catalog, repository, blobs, keyid, maxBlobBytes } = options;
  const routes = new Hono<{ Variables: AdminVariables }>();
  routes.use(requireToken(repository));
  routes.use(async (c, next) => {
    await next();
    c.header('Cache-Control', 'no-store');
  });

  routes.put('/root', async (c) => {
    const bytes = await readBody(c.req.raw, metadataCaps.root);
    return c.json({ version: await catalog.installRoot(bytes, c.get('actor')) });
  });

  routes.put('/targets', async (c) => {
    const bytes = await readBody(c.req.raw, metadataCaps.targets);
    return c.json({ version: await catalog.installTargets(bytes, c.get('actor')) });
  });

  routes.get('/blobs/:sha256', async (c) => {
    const sha256 = blobName(c.req.param('sha256'));
    const sizeBytes = await blobs.size(sha256);
    if (sizeBytes === undefined)
      throw new ServerError('ERR_INLAY_NOT_FOUND', `There is no blob ${sha256} here.`);
    return c.json({ sha256, sizeBytes });
  });

  routes.put('/blobs/:sha256', async (c) => {
    const sha256 = blobName(c.req.param('sha256'));
    const sizeBytes = await blobs.write(sha256, openBody(c.req.raw, maxBlobBytes), maxBlobBytes);
    return c.json({ sha256, sizeBytes });
  });

  routes.put('/rollouts/:channel/:model', async (c) => {
    const { channel, model } = c.req.param();
    const { version, percent } = await readJsonObject(c.req.raw);
    if (typeof version !== 'string' || typeof percent !== 'number') {
      throw new ServerError(
        'ERR_INLAY_REFUSED',
        'A rollout is set with a JSON object like { "version": "1.1.0", "percent": 25 }.',
      );
    }
    return c.json(await catalog.setRollout({ channel, model, version, percent }, c.get('actor')));
  });

  routes.get('/status', async (c) => c.json(createStatus(keyid, await catalog.state(), await blobs.usage())));

  routes.get('/audit', async (c) => c.json({ records: await repository.audit(1000) }));

  return routes;
}

function blobName(text: string): string {
  if (/^[0-9a-f]{64}$/.test(text)) return text;
  throw new ServerError('ERR_INLAY_REFUSED', 'A blob is named by its SHA-256 as 64 lower-case hex digits.');
}
