import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { serve } from '@hono/node-server';
import { serveStatic } from '@hono/node-server/serve-static';
import { Hono } from 'hono';
import { build } from 'vite';

/** Names below this path change with their content. */
const ASSETS = '/assets/';

/**
 * Builds a page with Vite and serves what came out, as any web server would.
 * @param {{ root: string, port: number, headers?: Record<string, string>, define?: Record<string, string>,
 *   plugins?: import('vite').PluginOption[], files?: Record<string, string> }} options `define` replaces names in the
 *   code; `files` are served as well, each at a path of its own.
 * @returns {Promise<{ url: string, close(): Promise<void> }>}
 */
export async function serveSite({ root, port, headers = {}, define = {}, plugins = [], files = {} }) {
  const outDir = await mkdtemp(join(tmpdir(), 'inlay-site-'));
  const remove = () => rm(outDir, { recursive: true, force: true, maxRetries: 5 });
  try {
    await build({
      configFile: false,
      root,
      logLevel: 'error',
      define,
      plugins,
      worker: { format: 'es' },
      build: { outDir, emptyOutDir: true, target: 'es2022' },
    });
    const server = serve({ fetch: createSite(outDir, headers, files).fetch, hostname: '127.0.0.1', port });
    await once(server, 'listening');
    return {
      url: `http://127.0.0.1:${server.address().port}/`,
      async close() {
        server.closeAllConnections();
        server.close();
        await remove();
      },
    };
  } catch (error) {
    await remove();
    throw error;
  }
}

function createSite(outDir, headers, files) {
  const site = new Hono();
  site.use(async (c, next) => {
    await next();
    for (const [name, value] of Object.entries(headers)) c.header(name, value);
    const isForGood = c.res.ok && c.req.path.startsWith(ASSETS);
    c.header('Cache-Control', isForGood ? 'public, max-age=31536000, immutable' : 'no-cache');
  });
  for (const [path, file] of Object.entries(files)) site.get(path, serveStatic({ path: file }));
  site.get('*', serveStatic({ root: outDir }));
  return site;
}
