import { Hono, type Context, type MiddlewareHandler } from 'hono';
import { cors } from 'hono/cors';
import { ServerError } from '../../core/errors.ts';
import { MAX_REQUEST_BYTES } from '../../telemetry/report.ts';
import { readBody, readJsonObject } from '../body.ts';
import type { Ingest } from './ingest.ts';
import { readRequest } from './request.ts';

/**
 * Creates the routes below `/v1` that devices report to: any web page may, and nothing about the sender is kept.
 * @param checks who may send, and how often; pages can read what they answer.
 */
export function createReportRoutes(ingest: Ingest, checks: readonly MiddlewareHandler[] = []): Hono {
  const routes = new Hono();
  const open = cors({
    origin: '*',
    allowMethods: ['POST'],
    allowHeaders: ['Authorization', 'Content-Encoding', 'Content-Type'],
    exposeHeaders: ['Retry-After'],
    maxAge: 86_400,
  });
  for (const path of ['/reports', '/forget']) {
    routes.use(path, open);
    for (const check of checks) routes.post(path, check);
  }

  routes.post('/reports', async (c) => {
    const { reports, refused, invalid, sentAt } = readRequest(await bytesOf(c));
    ingest.refuse(invalid);
    const taken = await ingest.take(reports, sentAt === undefined ? {} : { sentAt });
    c.header('Cache-Control', 'no-store');
    return c.json(refused.length === 0 ? taken : { ...taken, refused: [...taken.refused, ...refused] });
  });

  // Who knows the random name of an installation is that installation.
  routes.post('/forget', async (c) => {
    const { dev } = await readJsonObject(c.req.raw);
    if (typeof dev !== 'string' || !/^[\w-]{16}$/.test(dev)) {
      throw new ServerError(
        'ERR_INLAY_REFUSED',
        'The field `dev` is no name of an installation: 16 characters of base64url.',
      );
    }
    await ingest.forget(dev);
    return c.body(null, 204);
  });

  return routes;
}

/** A body whose length is said is read in one go; others are counted on the way. */
async function bytesOf(c: Context): Promise<Uint8Array> {
  const said = Number(c.req.header('content-length') ?? Number.NaN);
  return said <= MAX_REQUEST_BYTES
    ? new Uint8Array(await c.req.arrayBuffer())
    : readBody(c.req.raw, MAX_REQUEST_BYTES);
}
