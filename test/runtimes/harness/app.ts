/** What an app does in a runtime that takes the place of Node: `inlay` by its name, with its defaults. */
import { spawn } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startWorld } from '../../node/follow-fixture.ts';
import { root } from './bundle.ts';
import type { Runtime } from './process.ts';

const PACKAGES = ['onnxruntime-node', 'onnxruntime-web', 'onnxruntime-common'];
const digits = join(root, 'examples/digits/digits-1.1.0.onnx');
const script = join(root, 'test/runtimes/fixtures/app.mjs');

/** Milliseconds that one app may take. */
const LIMIT_MS = 60_000;

/**
 * Tests an app in a runtime.
 * @param flags - that come before the script.
 */
export function testApp(name: string, { program }: Runtime, flags: readonly string[]): void {
  describe(`an app in ${name}`, () => {
    let folder: string;
    beforeAll(() => {
      folder = mkdtempSync(join(tmpdir(), `inlay-${name}-app-`));
      mkdirSync(join(folder, 'node_modules'));
      writeFileSync(join(folder, 'package.json'), '{ "type": "module" }');
      copyFileSync(script, join(folder, 'app.mjs'));
      for (const [from, to] of [
        ['.', 'inlay'],
        ...PACKAGES.map((each) => [join('node_modules', each), each] as const),
      ] as const) {
        symlinkSync(join(root, from), join(folder, 'node_modules', to), 'junction');
      }
    });
    afterAll(() => {
      rmSync(folder, { recursive: true, force: true });
    });

    const play = (args: readonly string[], onLine: (line: string) => void = () => {}): Promise<unknown> =>
      new Promise((resolve, reject) => {
        const child = spawn(program, [...flags, 'app.mjs', ...args], {
          cwd: folder,
          env: { ...process.env, INLAY_CACHE_DIR: join(folder, 'cache'), NO_COLOR: '1' },
          stdio: ['ignore', 'pipe', 'pipe'],
          timeout: LIMIT_MS,
          killSignal: 'SIGKILL',
        });
        let last = '';
        let errors = '';
        createInterface({ input: child.stdout }).on('line', (line) => {
          last = line;
          onLine(line);
        });
        child.stderr.setEncoding('utf8').on('data', (text: string) => (errors += text));
        child.on('error', reject);
        child.on('close', (code, signal) => {
          if (code === 0) resolve(JSON.parse(last));
          else reject(new Error(`The app ended with ${signal ?? code}: ${last}\n${errors}`));
        });
      });

    const outcomes = ['AbortError', 'ERR_INLAY_DEADLINE', 'ERR_INLAY_FEED_MISSING', 'fulfilled'];
    for (const placement of ['auto', 'worker', 'inline', 'process'] as const) {
      it(`runs, aborts, closes and ends by itself with placement ${placement}`, async () => {
        const played = await play(['run', digits, placement]);
        expect(played).toMatchObject({
          runtime: name,
          backend: 'onnxruntime-node',
          same: true,
          outcomes,
          afterClose: 'ERR_INLAY_CLOSED',
          ...(placement !== 'auto' && { placement }),
        });
      });
    }

    it('follows a sync server: the next version takes over, and no call fails', async () => {
      const world = await startWorld();
      await world.ship(1);
      const shipped: Promise<unknown>[] = [];
      const played = await play(['follow', world.network.url, world.root], (line) => {
        if (line === 'ready') shipped.push(world.ship(2));
      });
      await Promise.all(shipped);
      expect(played).toEqual({ seen: [1, 2], failures: 0, store: 'fs' });
    });
  });
}
