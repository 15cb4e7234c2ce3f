import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { AuditAnswer } from '../../src/server/api/answers.ts';
import type { ApiDocument, ApiOperation } from '../../src/server/api/document.ts';
import { createAppOf } from '../../src/server/app.ts';
import { openSqlite } from '../../src/server/db/sqlite.ts';
import { createRepository } from '../../src/server/db/repository.ts';
import { createReplicaCatalog, leaveOnlineKey, readOnlineKey } from '../../src/server/replica.ts';
import { createServices } from '../../src/server/services.ts';
import { openDiskStorage } from '../../src/server/storage/disk.ts';
import {
  expectOk,
  install,
  problemOf,
  publish,
  startTestServer,
  temporaryDirectory,
  testPlatform,
  type TestServer,
} from './server-fixture.ts';

const generous = { failures: { perS: 1e6, burst: 1e6 }, admin: { perS: 1e6, burst: 1e6 } };

interface Route extends ApiOperation {
  readonly method: string;
  readonly path: string;
}

async function routesOf(server: TestServer): Promise<readonly Route[]> {
  const { paths } = (await expectOk(server.admin('openapi.json'))) as ApiDocument;
  return Object.entries(paths).flatMap(([path, operations]) =>
    Object.entries(operations).map(([method, operation]) => ({ ...operation, method, path })),
  );
}

interface Schema {
  readonly type?: string;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly items?: Schema;
  readonly enum?: readonly unknown[];
}

/** Names that break out of SQL, HTML, paths, logs and objects, and values that no field is made for. */
const hostile = fc.constantFrom<unknown>(
  "'; DROP TABLE token; --",
  '" OR 1=1 --',
  '<script>alert(1)</script>',
  '../../etc/passwd',
  '%00',
  'a\u0000b',
  'a\r\nSet-Cookie: x=1',
  '\u{1f4a9}\ud800',
  'x'.repeat(60_000),
  '__proto__',
  'constructor',
  '',
  0,
  -1,
  1e308,
  2 ** 53,
  0.1,
  true,
  null,
  [],
  {},
  [[[[]]]],
  { __proto__: { admin: true } },
);

/** A body with the fields that a schema names, and others. */
function bodyOf(schema: Schema): fc.Arbitrary<unknown> {
  const value = (of: Schema, depth: number): fc.Arbitrary<unknown> => {
    if (of.enum) return fc.oneof(fc.constantFrom(...of.enum), hostile);
    if (of.properties && depth < 4) {
      const fields = Object.fromEntries(
        Object.entries(of.properties).map(([name, inner]) => [name, value(inner, depth + 1)]),
      );
      return fc.oneof(
        { weight: 4, arbitrary: fc.record(fields, { requiredKeys: [] }) },
        { weight: 1, arbitrary: hostile },
      );
    }
    if (of.items && depth < 4) {
      return fc.oneof(fc.array(value(of.items, depth + 1), { maxLength: 3 }), hostile);
    }
    return fc.oneof(fc.constantFrom<unknown>('digits', '1.0.0', 1, 10, 60), hostile, fc.jsonValue());
  };
  const stray = fc.dictionary(fc.constantFrom('__proto__', 'x', 'role ', 'SELECT'), hostile, { maxKeys: 1 });
  return fc
    .tuple(value(schema, 0), stray)
    .map(([body, more]) => (typeof body === 'object' && !Array.isArray(body) ? { ...body, ...more } : body));
}

describe('the document', () => {
  it('names each route with its role, its parameters and its schemas', async () => {
    const server = await startTestServer();
    const routes = await routesOf(server);
    for (const route of routes) {
      expect(['admin', 'publisher', 'viewer'], route.path).toContain(route['x-inlay-role']);
      const named = [...route.path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name);
      const described = (route.parameters ?? []).filter((parameter) => parameter.in === 'path');
      expect(
        described.map(({ name }) => name),
        route.path,
      ).toEqual(named);
      expect(Object.keys(route.responses)).toContain('200');
    }
    const ids = routes.map(({ operationId }) => operationId);
    expect(new Set(ids).size).toBe(ids.length);
    expect(ids).toContain('putRolloutsChannelModel');
    // Every reference in it leads somewhere.
    const text = await (await server.admin('openapi.json')).text();
    expect([...text.matchAll(/"\$ref":"([^"]+)"/g)].map(([, to]) => to)).toEqual(
      expect.arrayContaining(['#/components/schemas/Problem']),
    );
    expect(text).not.toMatch(/"\$ref":"(?!#\/components\/schemas\/Problem)/);
  });
});

describe('whatever is sent', () => {
  it('gets a typed answer, never a failure of the server', async () => {
    const server = await startTestServer({ limits: generous });
    const publisher = await install(server);
    await publish(server, publisher, '1.0.0');
    const routes = (await routesOf(server)).filter(
      ({ requestBody }) => requestBody?.content['application/json'],
    );
    expect(routes.length).toBeGreaterThan(5);
    for (const route of routes) {
      const schema = route.requestBody?.content['application/json']?.schema as Schema;
      const path = route.path
        .replace('{channel}', 'stable')
        .replace('{model}', 'digits')
        .replace('{id}', '00000000')
        .replace(/\{\w+\}/g, 'none');
      await fc.assert(
        fc.asyncProperty(bodyOf(schema), async (body) => {
          const text = JSON.stringify(body);
          const response = await server.admin(path.replace('/v1/admin/', ''), {
            method: route.method.toUpperCase(),
            body: text,
          });
          const answer = (await response.json()) as { code?: string };
          expect(response.status, `${path} ${text.slice(0, 200)}`).toBeLessThan(500);
          if (response.status >= 400) expect(answer.code).toMatch(/^ERR_INLAY_/);
          expect(JSON.stringify(answer)).not.toMatch(/node_modules|\.ts:\d|SQLITE_|syntax error/);
        }),
        { numRuns: 20 },
      );
    }
    expect(server.errors).toEqual([]);
    const { intact } = (await expectOk(server.admin('audit'))) as AuditAnswer;
    expect(intact).toBe(true);
  });

  it('in an address or a query does no harm either', async () => {
    const server = await startTestServer({ limits: generous });
    await install(server);
    const routes = (await routesOf(server)).filter(({ method }) => method === 'get' || method === 'delete');
    const value = fc.oneof(hostile.map(String), fc.string({ maxLength: 30 }), fc.constantFrom('stable', '7'));
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...routes),
        fc.array(value, { minLength: 8, maxLength: 8 }),
        async (route, values) => {
          let used = 0;
          const next = (): string =>
            encodeURIComponent(
              (values[used++ % values.length] ?? '').slice(0, 4000).replace(/\p{Cs}/gu, '?'),
            );
          const path = route.path.replace(/\{\w+\}/g, next).replace('/v1/admin/', '');
          const query = (route.parameters ?? [])
            .filter((parameter) => parameter.in === 'query')
            .map(({ name }) => `${name}=${next()}`)
            .join('&');
          const response = await server.admin(`${path}?${query}`, { method: route.method.toUpperCase() });
          expect(response.status, `${path}?${query}`).toBeLessThan(500);
        },
      ),
      { numRuns: 150 },
    );
    expect(server.errors).toEqual([]);
  });
});

describe('a replica', () => {
  it('answers what it knows, and says where to go with what has to be signed', async () => {
    const server = await startTestServer();
    const publisher = await install(server);
    await publish(server, publisher, '1.0.0');
    const db = await openSqlite(join(server.dataDir, 'inlay.db'));
    onTestFinished(() => db.destroy());
    const platform = testPlatform();
    const repository = createRepository(db, () => platform.now());
    const blobs = await openDiskStorage({ directory: join(server.dataDir, 'blobs'), platform });
    const catalog = createReplicaCatalog(repository, await readOnlineKey(db));
    const errors: unknown[] = [];
    const onError = (error: unknown): unknown => errors.push(error);
    const parts = { db, repository, blobs, platform, onError };
    const services = createServices({ ...parts, catalog, maxBlobBytes: 1e6 });
    onTestFinished(() => services.close());
    const app = createAppOf(catalog, services, { ...parts, signsAt: 'https://primary.example' });
    const ask = async (path: string, init: RequestInit = {}): Promise<Response> =>
      app.request(path, { ...init, headers: { Authorization: `Bearer ${server.token}` } });

    expect(await (await ask('/v1/online-key')).json()).toEqual(server.onlineKey);
    expect(await (await ask('/v1/tip')).json()).toEqual(await expectOk(server.get('/v1/tip')));
    expect(await (await ask('/v1/admin/status')).json()).toMatchObject({ models: { digits: [{}] } });
    const put = ask('/v1/admin/rollouts/stable/digits', { method: 'PUT', body: '{}' });
    expect((await (await put).clone().json()) as unknown).toMatchObject({
      message: expect.stringContaining('https://primary.example') as unknown,
    });
    expect(await problemOf(put)).toEqual([421, 'ERR_INLAY_REFUSED']);
    // What the primary signs later is seen at once.
    const body = JSON.stringify({ version: '1.0.0', percent: 100 });
    await expectOk(server.put('rollouts/stable/digits', body));
    expect(await (await ask('/v1/admin/rollouts/stable/digits')).json()).toMatchObject({
      plan: { state: 'complete' },
    });
    expect(errors).toEqual([]);
  });

  it('finds no key before a primary has left one', async () => {
    const db = await openSqlite(join(await temporaryDirectory(), 'inlay.db'));
    onTestFinished(() => db.destroy());
    await expect(readOnlineKey(db)).rejects.toMatchObject({ code: 'ERR_INLAY_NOT_FOUND' });
    const key = (await startTestServer()).onlineKey;
    await leaveOnlineKey(db, key);
    await leaveOnlineKey(db, key);
    expect(await readOnlineKey(db)).toEqual(key);
  });

  it('does not start where it would share nothing', async () => {
    await expect(startTestServer({ role: 'replica' })).rejects.toMatchObject({ code: 'ERR_INLAY_REFUSED' });
  });
});

describe('the dashboard', () => {
  it('is sent from its folder, compressed, guarded, and kept as long as its names say', async () => {
    const dashboardDir = join(await temporaryDirectory(), 'dashboard');
    await mkdir(join(dashboardDir, 'assets'), { recursive: true });
    await writeFile(join(dashboardDir, 'index.html'), `<!doctype html>${'<p>Inlay</p>'.repeat(100)}`);
    await writeFile(join(dashboardDir, 'assets', 'app-3F2A9C1B.js'), 'export const a = 1;');
    await writeFile(join(dashboardDir, '..', 'secret.txt'), 'secret');
    const server = await startTestServer({ dashboardDir });

    const redirected = await fetch(`${server.url}/dashboard`, { redirect: 'manual' });
    expect([redirected.status, redirected.headers.get('location')]).toEqual([301, '/dashboard/']);
    const page = await server.get('/dashboard/', { 'Accept-Encoding': 'gzip' });
    expect(await page.text()).toMatch(/^<!doctype html>/);
    expect(Object.fromEntries(page.headers)).toMatchObject({
      'content-type': 'text/html; charset=utf-8',
      'content-encoding': 'gzip',
      'cache-control': 'no-cache',
      'x-content-type-options': 'nosniff',
      'referrer-policy': 'no-referrer',
    });
    const policy = page.headers.get('content-security-policy') ?? '';
    expect(policy).toContain("default-src 'self'");
    expect(policy).toContain("frame-ancestors 'none'");
    expect(policy).not.toContain('unsafe');
    const again = await server.get('/dashboard/', {
      'Accept-Encoding': 'gzip',
      'If-None-Match': page.headers.get('etag') ?? '',
    });
    expect(again.status).toBe(304);
    const script = await server.get('/dashboard/assets/app-3F2A9C1B.js');
    expect(script.headers.get('content-type')).toBe('text/javascript; charset=utf-8');
    expect(script.headers.get('cache-control')).toContain('immutable');
    for (const path of [
      '../secret.txt',
      '%2e%2e/secret.txt',
      '..%2fsecret.txt',
      'assets',
      'none.html',
      '%',
    ]) {
      expect((await server.get(`/dashboard/${path}`)).status, path).toBe(404);
    }
    expect(server.errors).toEqual([]);
  });

  it('that was not built is not there', async () => {
    const server = await startTestServer({ dashboardDir: join(await temporaryDirectory(), 'none') });
    expect(await problemOf(server.get('/dashboard/'))).toEqual([404, 'ERR_INLAY_NOT_FOUND']);
  });
});
