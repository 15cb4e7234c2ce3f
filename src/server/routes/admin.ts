import { Hono } from 'hono';
import { ServerError } from '../../core/errors.ts';
import type { Platform } from '../../core/platform.ts';
import { rolloutActions } from '../../publish/rollout.ts';
import { metadataCaps } from '../../trust/client.ts';
import { requireToken, type AdminVariables } from '../auth.ts';
import { openBody, readBody, readJsonObject } from '../body.ts';
import type { Catalog } from '../catalog.ts';
import { plansOf } from '../channels.ts';
import type { Repository } from '../db/repository.ts';
import { readActionBody, readRolloutBody } from '../rollout-body.ts';
import { createStatus } from '../status.ts';
import type { BlobStorage } from '../storage/blobs.ts';

/** What the admin plane is made of. */
export interface AdminRoutesOptions {
  readonly catalog: Catalog;
  readonly repository: Repository;
  readonly blobs: BlobStorage;
  readonly platform: Pick<Platform, 'now'>;
  /** Largest file that is taken in, bytes. */
  readonly maxBlobBytes: number;
}

/** Creates the routes below `/v1/admin`; all of them need a token. */
export function createAdminRoutes(options: AdminRoutesOptions): Hono<{ Variables: AdminVariables }> {
  const { catalog, repository, blobs, platform, maxBlobBytes } = options;
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
    const body = readRolloutBody(await readJsonObject(c.req.raw));
    return c.json(await catalog.setRollout({ ...body, channel, model }, c.get('actor')));
  });

  routes.post('/rollouts/:channel/:model/:action', async (c) => {
    const { channel, model, action: name } = c.req.param();
    const action = rolloutActions.find((known) => known === name);
    if (!action) {
      throw new ServerError(
        'ERR_INLAY_NOT_FOUND',
        `A rollout takes no ${JSON.stringify(name.slice(0, 80))}; it takes ${rolloutActions.join(', ')}.`,
      );
    }
    const body = readActionBody(await readJsonObject(c.req.raw), action);
    return c.json(await catalog.changeRollout({ ...body, channel, model, action }, c.get('actor')));
  });

  routes.get('/rollouts/:channel/:model', async (c) => {
    const { channel, model } = c.req.param();
    const plan = plansOf((await catalog.state()).published?.channels ?? {}, channel).find(
      (candidate) => candidate.model === model,
    );
    if (!plan) {
      throw new ServerError(
        'ERR_INLAY_NOT_FOUND',
        `Model ${model} has no rollout in channel ${channel}; start one with \`inlay rollout set\`.`,
      );
    }
    const records = (await repository.audit(1000)).filter(
      ({ details }) => details['channel'] === channel && details['model'] === model,
    );
    return c.json({ plan, records });
  });

  routes.get('/status', async (c) =>
    c.json(createStatus(catalog.onlineKey, await catalog.state(), await blobs.usage(), platform.now())),
  );

  routes.get('/audit', async (c) => c.json({ records: await repository.audit(1000) }));

  return routes;
}

function blobName(text: string): string {
  if (/^[0-9a-f]{64}$/.test(text)) return text;
  throw new ServerError('ERR_INLAY_REFUSED', 'A blob is named by its SHA-256 as 64 lower-case hex digits.');
}
