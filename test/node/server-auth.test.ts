import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { exportJWK, generateKeyPair, SignJWT, type JWK } from 'jose';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { ApiDocument, ApiOperation } from '../../src/server/api/document.ts';
import type { AccessRole } from '../../src/server/access.ts';
import { createRateLimit } from '../../src/server/rate-limit.ts';
import type { NewToken, TokenRecord } from '../../src/server/tokens.ts';
import { expectOk, install, problemOf, publish, startTestServer, type TestServer } from './server-fixture.ts';

const roles: readonly AccessRole[] = ['admin', 'publisher', 'viewer', 'device'];
const generous = { failures: { perS: 1000, burst: 10_000 }, admin: { perS: 1000, burst: 10_000 } };

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

/** Calls a route with parameters that name nothing, and a body that asks for nothing. */
function call(server: TestServer, { method, path, requestBody }: Route, token?: string): Promise<Response> {
  const filled = path
    .replace('{sha256}', '0'.repeat(64))
    .replace('{id}', '00000000')
    .replace(/\{\w+\}/g, 'none');
  return fetch(server.url + filled, {
    method: method.toUpperCase(),
    headers: token === undefined ? {} : { Authorization: `Bearer ${token}` },
    ...(requestBody && { body: '{}' }),
  });
}

async function create(server: TestServer, request: object): Promise<NewToken> {
  const body = JSON.stringify({ name: 'test', ...request });
  return (await expectOk(server.admin('tokens', { method: 'POST', body }))) as NewToken;
}

const as = (server: TestServer, token: string, path: string, init: RequestInit = {}): Promise<Response> =>
  fetch(`${server.url}/v1/admin/${path}`, { ...init, headers: { Authorization: `Bearer ${token}` } });

describe('every route of the admin plane', () => {
  it('lets nobody in without a key that holds', async () => {
    const server = await startTestServer({ limits: generous });
    const expired = await create(server, { role: 'admin', expiresInS: 60 });
    const revoked = await create(server, { role: 'admin' });
    await expectOk(server.admin(`tokens/${revoked.record.id}`, { method: 'DELETE' }));
    server.platform.advanceHours(1);
    const routes = await routesOf(server);
    expect(routes.length).toBeGreaterThan(15);
    for (const route of routes) {
      for (const token of [undefined, 'garbage', 'inlay_x', 'a.b.c', expired.token, revoked.token]) {
        const response = await call(server, route, token);
        const where = `${route.method} ${route.path} with ${token ?? 'nothing'}`;
        expect(response.headers.get('www-authenticate'), where).toBe(
          token === undefined ? 'Bearer' : 'Bearer error="invalid_token"',
        );
        expect(response.headers.get('cache-control'), where).toBe('no-store');
        expect(await problemOf(Promise.resolve(response)), where).toEqual([401, 'ERR_INLAY_UNAUTHORIZED']);
      }
    }
  });

  it('lets each role do what it may, and no more', async () => {
    const server = await startTestServer({ limits: generous });
    const tokens = new Map<AccessRole, string>();
    for (const role of roles) tokens.set(role, (await create(server, { role })).token);
    for (const route of await routesOf(server)) {
      const needed = roles.indexOf(route['x-inlay-role'] as AccessRole);
      expect(needed, route.path).toBeGreaterThanOrEqual(0);
      for (const [index, role] of roles.entries()) {
        const response = await call(server, route, tokens.get(role));
        const where = `${route.method} ${route.path} as ${role}`;
        if (role === 'device' || index > needed) {
          expect(await problemOf(Promise.resolve(response)), where).toEqual([403, 'ERR_INLAY_FORBIDDEN']);
          expect(response.headers.get('www-authenticate')).toBe('Bearer error="insufficient_scope"');
        } else {
          expect([200, 404, 409, 422], where).toContain(response.status);
        }
      }
    }
    expect(server.errors).toEqual([]);
  });
});

describe('a key', () => {
  it('is stored as its hash, shown once, and listed without itself', async () => {
    const server = await startTestServer();
    const { token, record } = await create(server, { name: 'ci', role: 'publisher' });
    expect(token).toMatch(/^inlay_[\w-]{43}$/);
    const text = await (await server.admin('tokens')).text();
    expect(text).not.toContain(token.slice(6));
    expect(text).toContain(record.id);
    expect(JSON.stringify(await expectOk(server.admin('audit')))).not.toContain(token.slice(6));
  });

  it('of some models and channels is good for these only', async () => {
    const server = await startTestServer();
    const publisher = await install(server);
    await publish(server, publisher, '1.0.0');
    const scope = { models: ['digits'], channels: ['beta'] };
    const { token } = await create(server, { role: 'publisher', scope });
    const body = JSON.stringify({ version: '1.0.0', percent: 100 });
    await expectOk(as(server, token, 'rollouts/beta/digits', { method: 'PUT', body }));
    await expectOk(as(server, token, 'status'));
    expect(await expectOk(as(server, token, 'me'))).toMatchObject({ role: 'publisher', scope });
    for (const path of ['rollouts/stable/digits', 'rollouts/beta/faces']) {
      const refused = as(server, token, path, { method: 'PUT', body });
      expect(await problemOf(refused), path).toEqual([403, 'ERR_INLAY_FORBIDDEN']);
    }
    expect(await problemOf(as(server, token, 'audit'))).toEqual([403, 'ERR_INLAY_FORBIDDEN']);
  });

  it('gains nothing by naming a model to a route that asks for none', async () => {
    const server = await startTestServer();
    const { token } = await create(server, { role: 'admin', scope: { models: ['digits'] } });
    const wide = { method: 'POST', body: JSON.stringify({ role: 'admin', name: 'wide' }) };
    for (const path of ['tokens', 'tokens?model=digits']) {
      expect(await problemOf(as(server, token, path, wide)), path).toEqual([403, 'ERR_INLAY_FORBIDDEN']);
    }
    expect(await problemOf(as(server, token, 'audit?model=digits'))).toEqual([422, 'ERR_INLAY_REFUSED']);
  });

  it('that is rotated holds for its grace, and the new one as long as the old one did', async () => {
    const server = await startTestServer();
    const old = await create(server, { role: 'viewer', expiresInS: 7 * 86_400 });
    server.platform.advanceHours(24);
    const made = (await expectOk(
      server.admin(`tokens/${old.record.id}/rotate`, {
        method: 'POST',
        body: JSON.stringify({ graceS: 3600 }),
      }),
    )) as NewToken;
    expect(made.record).toMatchObject({ role: 'viewer', expiresAt: server.platform.now() + 7 * 86_400_000 });
    await expectOk(as(server, old.token, 'status'));
    await expectOk(as(server, made.token, 'status'));
    server.platform.advanceHours(1);
    expect((await as(server, old.token, 'status')).status).toBe(401);
    await expectOk(as(server, made.token, 'status'));
    const again = server.admin(`tokens/${old.record.id}/rotate`, { method: 'POST', body: '{}' });
    expect(await problemOf(again)).toEqual([409, 'ERR_INLAY_CONFLICT']);
  });

  it('tells when it was used, give or take an hour', async () => {
    const server = await startTestServer();
    const { token, record } = await create(server, { role: 'viewer' });
    const used = async (): Promise<number | null | undefined> => {
      const { tokens } = (await expectOk(server.admin('tokens'))) as { tokens: TokenRecord[] };
      return tokens.find(({ id }) => id === record.id)?.usedAt;
    };
    expect(await used()).toBeNull();
    const first = server.platform.now();
    await expectOk(as(server, token, 'status'));
    expect(await used()).toBe(first);
    server.platform.advanceHours(0.5);
    await expectOk(as(server, token, 'status'));
    expect(await used()).toBe(first);
    server.platform.advanceHours(0.6);
    await expectOk(as(server, token, 'status'));
    expect(await used()).toBe(server.platform.now());
  });

  it('of the last administrator cannot be revoked', async () => {
    const server = await startTestServer();
    const { tokens } = (await expectOk(server.admin('tokens'))) as { tokens: TokenRecord[] };
    const id = tokens[0]?.id ?? '';
    const revoke = (): Promise<Response> => server.admin(`tokens/${id}`, { method: 'DELETE' });
    expect(await problemOf(revoke())).toEqual([409, 'ERR_INLAY_CONFLICT']);
    const other = await create(server, { role: 'admin' });
    await expectOk(revoke());
    expect((await server.admin('status')).status).toBe(401);
    await expectOk(as(server, other.token, 'status'));
  });
});

describe('reports', () => {
  it('need a key of a device where the server asks for one', async () => {
    const server = await startTestServer({ requireDeviceKey: true });
    const device = await create(server, { role: 'device' });
    const viewer = await create(server, { role: 'viewer' });
    const post = async (token?: string): Promise<number> => {
      const headers: HeadersInit = token === undefined ? {} : { Authorization: `Bearer ${token}` };
      return (await fetch(`${server.url}/v1/reports`, { method: 'POST', body: '{}', headers })).status;
    };
    expect(await post()).toBe(401);
    expect(await post('garbage')).toBe(401);
    expect(await post(viewer.token)).toBe(403);
    expect([401, 403]).not.toContain(await post(device.token));
    expect((await as(server, device.token, 'status')).status).toBe(403);
  });
});

describe('a rate', () => {
  it('lets a burst through, then so many a second, and says when to ask again', () => {
    let nowMs = 0;
    const limit = createRateLimit({ perS: 2, burst: 3 }, { monotonicMs: () => nowMs });
    const taken = (): boolean => {
      try {
        limit.take('a');
        return true;
      } catch {
        return false;
      }
    };
    expect([taken(), taken(), taken(), taken()]).toEqual([true, true, true, false]);
    expect(() => {
      limit.take('b');
    }).not.toThrow();
    nowMs = 499;
    expect(taken()).toBe(false);
    nowMs = 500;
    expect([taken(), taken()]).toEqual([true, false]);
    nowMs = 60_000;
    expect([taken(), taken(), taken(), taken()]).toEqual([true, true, true, false]);
  });

  it('forgets who asked longest ago, so that names take no memory without end', () => {
    const limit = createRateLimit({ perS: 1, burst: 1 }, { monotonicMs: () => 0 });
    for (let i = 0; i < 10_001; i += 1) limit.take(`name ${i}`);
    expect(() => {
      limit.take('name 0');
    }).not.toThrow();
    expect(() => {
      limit.take('name 10000');
    }).toThrow(/Too many requests; ask again in 1 s/);
  });

  it('of one key or one address is answered with 429 and Retry-After', async () => {
    const few = { perS: 0.5, burst: 2 };
    const server = await startTestServer({ limits: { admin: few, failures: few, reports: few } });
    for (const [send, status] of [
      [() => server.admin('status'), 200],
      [() => as(server, 'inlay_garbage', 'status'), 401],
    ] as const) {
      const responses = [await send(), await send(), await send()];
      expect(responses.map((response) => response.status)).toEqual([status, status, 429]);
      const last = responses[2];
      expect(last?.headers.get('retry-after')).toBe('2');
      expect(await last?.json()).toMatchObject({ code: 'ERR_INLAY_RATE_LIMITED' });
    }
  });

  it('of those who fail locks nobody out who does not', async () => {
    const server = await startTestServer({ limits: { failures: { perS: 0.5, burst: 1 } } });
    expect((await as(server, 'garbage', 'status')).status).toBe(401);
    expect((await as(server, 'garbage', 'status')).status).toBe(429);
    await expectOk(server.admin('status'));
  });
});

/** A provider of OpenID Connect, as far as a server needs one. */
async function startProvider(): Promise<{
  readonly issuer: string;
  sign(claims: object, options?: SignOptions): Promise<string>;
  readonly served: string[];
}> {
  const keys = await generateKeyPair('ES256', { extractable: true });
  const kid = 'first';
  const served: string[] = [];
  const server = createServer((request, response) => {
    const path = request.url ?? '';
    served.push(path);
    const reply = (body: unknown): unknown => response.end(JSON.stringify(body));
    if (path === '/.well-known/openid-configuration') reply({ issuer, jwks_uri: `${issuer}/keys` });
    else if (path === '/keys') {
      void exportJWK(keys.publicKey).then((key: JWK) => reply({ keys: [{ ...key, kid, alg: 'ES256' }] }));
    } else response.writeHead(404).end();
  });
  await new Promise<void>((done) => {
    server.listen(0, '127.0.0.1', done);
  });
  onTestFinished(
    () =>
      new Promise<void>((done) => {
        server.close(() => {
          done();
        });
        server.closeAllConnections();
      }),
  );
  const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return {
    issuer,
    served,
    sign: (claims, { audience = 'inlay', from = issuer, expires = 3600, now }: SignOptions = {}) => {
      const nowS = Math.floor((now ?? Date.parse('2026-03-01T12:00:00Z')) / 1000);
      return new SignJWT({ sub: 'ada', roles: ['viewer'], ...claims })
        .setProtectedHeader({ alg: 'ES256', kid })
        .setIssuer(from)
        .setAudience(audience)
        .setIssuedAt(nowS)
        .setExpirationTime(nowS + expires)
        .sign(keys.privateKey);
    },
  };
}

interface SignOptions {
  readonly audience?: string;
  readonly from?: string;
  /** Seconds from now. */
  readonly expires?: number;
  readonly now?: number;
}

describe('a person who signs in at a provider', () => {
  it('may do what the provider says, under their own name', async () => {
    const provider = await startProvider();
    const oidc = {
      issuer: provider.issuer,
      audience: 'inlay',
      roleClaim: 'realm.groups',
      roles: { 'ml-admins': 'admin', readers: 'viewer' },
    } as const;
    const server = await startTestServer({ oidc });
    const status = async (token: string): Promise<number> => (await as(server, token, 'status')).status;
    const tokens = async (token: string): Promise<number> => (await as(server, token, 'tokens')).status;
    const reader = await provider.sign({ realm: { groups: ['readers', 'others'] } });
    expect([await status(reader), await tokens(reader)]).toEqual([200, 403]);
    const admin = await provider.sign({ realm: { groups: ['readers', 'ml-admins'] } });
    const body = JSON.stringify({ name: 'ci', role: 'viewer' });
    await expectOk(as(server, admin, 'tokens', { method: 'POST', body }));
    expect(await expectOk(server.admin('audit'))).toMatchObject({ records: [{ actor: 'oidc:ada' }, {}] });
    const nobody = await provider.sign({ realm: { groups: ['others', 'admin'] } });
    expect(await problemOf(as(server, nobody, 'status'))).toEqual([403, 'ERR_INLAY_FORBIDDEN']);
    // Keys go on as before, and the provider's are asked for once.
    await expectOk(server.admin('status'));
    expect(provider.served).toEqual(['/.well-known/openid-configuration', '/keys']);
  });

  it('is refused with a token of others, for others, expired, or signed by nobody', async () => {
    const provider = await startProvider();
    const stranger = await startProvider();
    const server = await startTestServer({ oidc: { issuer: provider.issuer, audience: 'inlay' } });
    const good = await provider.sign({});
    const [header = '', payload = ''] = good.split('.');
    const unsigned = `${Buffer.from('{"alg":"none"}').toString('base64url')}.${payload}.`;
    const shared = await new SignJWT({ sub: 'ada', roles: ['admin'] })
      .setProtectedHeader({ alg: 'HS256' })
      .setIssuer(provider.issuer)
      .setAudience('inlay')
      .setExpirationTime('1y')
      .sign(new TextEncoder().encode('a secret that is long enough to sign'));
    for (const [why, token] of Object.entries({
      audience: await provider.sign({}, { audience: 'another' }),
      issuer: await provider.sign({}, { from: 'https://example.com' }),
      signature: await stranger.sign({}, { from: provider.issuer }),
      payload: `${header}.${payload}.${'A'.repeat(86)}`,
      expired: await provider.sign({}, { expires: -61 }),
      unsigned,
      shared,
    })) {
      expect(await problemOf(as(server, token, 'status')), why).toEqual([401, 'ERR_INLAY_UNAUTHORIZED']);
    }
    await expectOk(as(server, good, 'status'));
    await expectOk(as(server, await provider.sign({}, { expires: -30 }), 'status'));
    expect(server.errors).toEqual([]);
  });

  it('is let in again after the provider was away when the first one came', async () => {
    const provider = await startProvider();
    const { issuer } = provider;
    const platform = (await startTestServer()).platform;
    let isAway = true;
    const server = await startTestServer({
      oidc: { issuer, audience: 'inlay' },
      platform: {
        ...platform,
        fetch: (input, init) => (isAway ? Promise.reject(new TypeError('away')) : fetch(input, init)),
      },
    });
    const token = await provider.sign({});
    expect(await problemOf(as(server, token, 'status'))).toEqual([500, 'ERR_INLAY_SERVER']);
    isAway = false;
    await expectOk(as(server, token, 'status'));
  });
});
