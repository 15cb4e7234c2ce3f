import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build } from 'esbuild';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createRandom, drawDigit } from '../../examples/digits/draw.mjs';
import { root } from './harness/bundle.ts';
import { runtimeFor } from './harness/process.ts';
import { serve, workerdBuild, type Served } from './harness/workerd.ts';

const workerd = runtimeFor('workerd');

describe.skipIf(workerd === undefined)('the example of a Cloudflare Worker', () => {
  let folder: string;
  let served: Served;
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'inlay-edge-'));
    const { options, modules } = workerdBuild(folder);
    await build({
      ...options,
      entryPoints: [join(root, 'examples/edge-worker/worker.mjs')],
      outfile: join(folder, 'main.mjs'),
      bundle: true,
      format: 'esm',
      target: 'es2022',
      logLevel: 'error',
    });
    served = await serve(workerd?.program ?? '', folder, modules);
  });
  afterAll(async () => {
    await served.close();
    rmSync(folder, { recursive: true, force: true });
  });

  const random = createRandom(7);
  const classify = async (label: number): Promise<number> => {
    const body = Uint8Array.from(drawDigit(random, label).pixels, (ink) => Math.round(ink * 255));
    const response = await fetch(served.url, { method: 'POST', body });
    expect(response.status, served.output()).toBe(200);
    return ((await response.json()) as { digit: number }).digit;
  };

  it('reads digits, also when all requests come before the model is there', async () => {
    const labels = Array.from({ length: 40 }, (_, i) => i % 10);
    const read = await Promise.all(labels.map(classify));
    expect(read.filter((digit, i) => digit === labels[i]).length).toBeGreaterThanOrEqual(36);
  });

  it('answers others when clients go away', async () => {
    const body = new Uint8Array(784);
    for (let round = 0; round < 10; round += 1) {
      const gone = Array.from({ length: 8 }, () => {
        const controller = new AbortController();
        const request = fetch(served.url, { method: 'POST', body, signal: controller.signal });
        setTimeout(() => controller.abort(), round / 3);
        return request.catch(() => undefined);
      });
      expect(await classify(3)).toBeTypeOf('number');
      await Promise.all(gone);
    }
  });

  it('says what it takes', async () => {
    expect((await fetch(served.url)).status).toBe(405);
    const short = await fetch(served.url, { method: 'POST', body: new Uint8Array(3) });
    expect(short.status).toBe(400);
    expect(await short.text()).toContain('784');
  });
});
