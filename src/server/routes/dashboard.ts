import { readdir, readFile } from 'node:fs/promises';
import { extname, join, sep } from 'node:path';
import { Hono } from 'hono';
import { immutable, represent, revalidated, sendProblem, sendText, type Representation } from '../respond.ts';

/** Types by extension; what has another one is not sent. */
const types: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
  '.ico': 'image/x-icon',
  '.json': 'application/json',
  '.txt': 'text/plain; charset=utf-8',
  '.map': 'application/json',
  '.woff2': 'font/woff2',
};

/** Names with a hash of their content, as `app-3F2A9C1B.js`. */
const hashed = /[.-][A-Za-z0-9_]{8,}\.\w+$/;

/** Nothing from elsewhere, nothing inline, in nobody's frame (CSP Level 3). */
const policy = [
  "default-src 'self'",
  "img-src 'self' data:",
  "object-src 'none'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

/**
 * Creates the routes of the dashboard: the files of a folder as they were when they were first asked for. They hold
 * nothing secret; what they show comes from the admin plane, with a key.
 */
export function createDashboardRoutes(directory: string): Hono {
  const routes = new Hono();
  const forms = new Map<string, Promise<Representation>>();
  let listed: Promise<ReadonlySet<string>> | undefined;

  const list = async (): Promise<ReadonlySet<string>> => {
    const names = await readdir(directory, { recursive: true }).catch(() => []);
    return new Set(names.map((name) => name.split(sep).join('/')));
  };

  const load = async (name: string): Promise<Representation> =>
    represent(await readFile(join(directory, name)));

  routes.use(async (c, next) => {
    await next();
    c.header('Content-Security-Policy', policy);
    c.header('X-Content-Type-Options', 'nosniff');
    c.header('Referrer-Policy', 'no-referrer');
    c.header('X-Frame-Options', 'DENY');
    c.header('Cross-Origin-Opener-Policy', 'same-origin');
  });

  routes.get('/*', async (c) => {
    const { pathname } = new URL(c.req.url);
    // Its files are named relative to the folder.
    if (pathname === '/dashboard') return c.redirect('/dashboard/', 301);
    const name = pathname.slice('/dashboard/'.length) || 'index.html';
    const type = types[extname(name)];
    listed ??= list();
    // Only names that a listing gave are opened, so that no address leads out of the folder.
    if (type === undefined || !(await listed).has(name)) {
      listed = undefined;
      return sendProblem(c, 404, 'ERR_INLAY_NOT_FOUND', 'The dashboard has no such file.');
    }
    const form = forms.get(name) ?? load(name);
    forms.set(name, form);
    return sendText(c, await form, hashed.test(name) ? immutable : revalidated, type);
  });
  return routes;
}
