import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { signMetadata } from '../../src/publish/sign.ts';
import type { Targets } from '../../src/trust/metadata.ts';
import { install, publish, startTestServer, tipOf, verify } from './server-fixture.ts';

const paths = ['root', 'targets', `blobs/${'0'.repeat(64)}`, 'rollouts/stable/digits'];

/** Metadata with one value replaced by anything. */
function broken(original: unknown): fc.Arbitrary<unknown> {
  const places: (readonly (string | number)[])[] = [];
  const visit = (value: unknown, at: readonly (string | number)[]): void => {
    if (at.length > 0) places.push(at);
    if (typeof value !== 'object' || value === null) return;
    for (const [key, item] of Object.entries(value)) visit(item, [...at, key]);
  };
  visit(original, []);
  const anything = fc.oneof(
    fc.jsonValue(),
    fc.constantFrom(0, -1, 1e300, 2 ** 53, '', '../../x', '__proto__', [], {}, null, 'a'.repeat(10_000)),
  );
  return fc.tuple(fc.constantFrom(...places), anything).map(([place, value]) => {
    const copy: unknown = structuredClone(original);
    let parent = copy as Record<string, unknown>;
    for (const key of place.slice(0, -1)) parent = parent[key] as Record<string, unknown>;
    parent[place.at(-1) as string] = value;
    return copy;
  });
}

describe('hostile bodies', () => {
  it('get a refusal with a code, never a failure, and change nothing', async () => {
    const server = await startTestServer();
    const publisher = await install(server);
    await publish(server, publisher, '1.0.0');
    const before = await tipOf(server);
    const next: Targets = { ...publisher.targets, version: publisher.targets.version + 1 };
    const envelope: unknown = JSON.parse(
      new TextDecoder().decode(await signMetadata(next, [publisher.signer])),
    );
    const rollout = { version: '1.0.0', percent: 10 };

    const body = fc.oneof(
      fc.uint8Array({ maxLength: 300 }).map((bytes) => new Uint8Array(bytes)),
      fc.json(),
      broken(envelope).map((value) => JSON.stringify(value)),
      broken(rollout).map((value) => JSON.stringify(value)),
      fc.string().map((text) => `{"signatures":[],"signed":${text}}`),
      fc.nat(5000).map((depth) => '['.repeat(depth)),
    );
    // A broken rollout may still be a rollout, and a broken share one that is in range.
    const isRollout = (path: string, text: unknown): boolean => {
      if (!path.startsWith('rollouts') || typeof text !== 'string') return false;
      try {
        const { version, percent } = JSON.parse(text) as Record<string, unknown>;
        return version === '1.0.0' && typeof percent === 'number' && percent > 0 && percent <= 100;
      } catch {
        return false;
      }
    };

    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...paths), body, async (path, content) => {
        fc.pre(!isRollout(path, content));
        const response = await server.put(path, content);
        const answer = (await response.json()) as { code?: unknown };
        expect(response.status).toBeGreaterThanOrEqual(400);
        expect(response.status).toBeLessThan(500);
        expect(answer.code).toMatch(/^ERR_INLAY_/);
        expect(JSON.stringify(answer)).not.toMatch(/node_modules|\.ts:|\.js:/);
      }),
      { numRuns: 400 },
    );
    expect(server.errors).toEqual([]);
    expect(await tipOf(server)).toEqual(before);
  });

  it('that are signed after all never break what devices verify', async () => {
    const server = await startTestServer();
    const publisher = await install(server);
    await publish(server, publisher, '1.0.0');
    await server.put('rollouts/stable/digits', JSON.stringify({ version: '1.0.0', percent: 50 }));
    const signable = (value: unknown): value is Targets => {
      try {
        JSON.stringify(value);
        return typeof value === 'object' && value !== null;
      } catch {
        return false;
      }
    };
    await fc.assert(
      fc.asyncProperty(
        broken({ ...publisher.targets, version: publisher.targets.version + 1 }).filter(signable),
        async (targets) => {
          let bytes: Uint8Array<ArrayBuffer>;
          try {
            bytes = await signMetadata(targets, [publisher.signer]);
          } catch {
            return; // Fractions and the like have no canonical form.
          }
          const { status } = await server.put('targets', bytes);
          expect([200, 409, 413, 422]).toContain(status);
        },
      ),
      { numRuns: 200 },
    );
    const { plans } = await verify(server);
    expect(plans).toMatchObject([{ bp: 5000, cand: { version: '1.0.0' } }]);
    expect(server.errors).toEqual([]);
  });

  it('as addresses get a refusal as well', async () => {
    const server = await startTestServer();
    await install(server);
    const segment = fc.oneof(
      fc.string({ maxLength: 40 }),
      fc.constantFrom('..', '%2e%2e', '%00', '%ff', '__proto__', 'constructor', 'rollout', 'models'),
    );
    const prefix = fc.constantFrom(
      '/v1/targets/',
      '/v1/metadata/',
      '/v1/targets/models/',
      '/v1/targets/rollout/',
      '/',
    );
    await fc.assert(
      fc.asyncProperty(prefix, fc.array(segment, { maxLength: 5 }), async (start, segments) => {
        const path = segments
          .map((text) => (text.startsWith('%') ? text : encodeURIComponent(text)))
          .join('/');
        const { status } = await server.get(start + path);
        expect(status).toBeGreaterThanOrEqual(400);
        expect(status).toBeLessThan(500);
      }),
      { numRuns: 200 },
    );
    expect(server.errors).toEqual([]);
  });
});
