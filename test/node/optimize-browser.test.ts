import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import { findChromium, skipsBrowser } from '../../scripts/chromium.mjs';
import { Tensor } from '../../src/core/tensor.ts';
import { encodeModel } from '../../src/onnx/index.ts';
import { findBrowser } from '../../src/optimize-node/browser-find.ts';
import { packMessage, unpackMessage } from '../../src/optimize-node/browser-page.ts';
import { openBrowserRuntime } from '../../src/optimize-node/browser.ts';
import { createNodeRuntime } from '../../src/optimize-node/node-cpu.ts';
import { dense, denseFeeds } from './optimize-audit-models.ts';
import { temporaryDirectory } from './server-fixture.ts';

const browser = skipsBrowser() ? undefined : (process.env['INLAY_CHROMIUM'] ?? findChromium());
if (browser === undefined) console.warn('Skipped: there is no Chromium, or browser tests are left out.');

const folder = mkdtempSync(join(tmpdir(), 'inlay-optimize-'));
vi.stubEnv('TMPDIR', folder);
afterAll(() => {
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true });
});
const left = (): readonly string[] => readdirSync(folder).filter((file) => /^inlay-|chromium/i.test(file));

describe.skipIf(browser === undefined)('a browser as a runtime', () => {
  const path = browser ?? '';

  it.each(['wasm', 'webgpu'] as const)('gives with %s what the processor gives', async (device) => {
    const runtime = await openBrowserRuntime({ browser: path, device, allowSoftwareAdapter: true });
    onTestFinished(() => runtime.close());
    const native = createNodeRuntime();
    expect(runtime.target).toBe(device);
    expect(runtime.description).toMatch(new RegExp(`^onnxruntime-web [\\d.]+, ${device} in \\w+ \\d+, .`));
    const model = encodeModel(dense());
    const [session, expected] = [await runtime.open(model), await native.open(model)];
    expect(session.inputs).toEqual(expected.inputs);
    expect(session.outputs).toEqual(expected.outputs);
    const feeds = denseFeeds(3);
    const [y, z] = [(await session.run(feeds))['y'], (await expected.run(feeds))['y']];
    expect(y).toBeInstanceOf(Tensor);
    expect(y?.shape).toEqual([3, 16]);
    for (const [i, value] of (z?.data as Float32Array).entries()) expect(y?.data[i]).toBeCloseTo(value, 4);
    expect(await session.time(feeds, 3)).toHaveLength(3);
    await expect(runtime.open(Uint8Array.of(1, 2, 3))).rejects.toMatchObject({
      code: 'ERR_INLAY_MODEL_INVALID',
    });
    const wrong = { x: new Tensor('float32', [1, 3], new Float32Array(3)) };
    await expect(session.run(wrong)).rejects.toMatchObject({ name: 'InputError' });
    await session.release();
    await expected.release();
    await runtime.close();
    await expect(runtime.open(model)).rejects.toMatchObject({ code: 'ERR_INLAY_CLOSED' });
    expect(left()).toEqual([]);
  });

  it('is refused if its adapter computes in software, and leaves nothing behind', async () => {
    await expect(openBrowserRuntime({ browser: path, device: 'webgpu' })).rejects.toMatchObject({
      code: 'ERR_INLAY_DEVICE_UNAVAILABLE',
    });
    expect(left()).toEqual([]);
  });
});

describe('a browser that does not start', () => {
  it.skipIf(process.platform === 'win32')('is an error, and leaves nothing behind', async () => {
    const scripts = await temporaryDirectory();
    const [silent, failing] = [join(scripts, 'silent'), join(scripts, 'failing')];
    await writeFile(silent, '#!/bin/sh\nexec sleep 60\n', { mode: 0o755 });
    await writeFile(failing, '#!/bin/sh\nexit 3\n', { mode: 0o755 });
    const open = (path: string) => openBrowserRuntime({ browser: path, device: 'wasm', startMs: 200 });
    const code = 'ERR_INLAY_BACKEND_UNAVAILABLE';
    await expect(open(join(scripts, 'none'))).rejects.toMatchObject({ code });
    await expect(open(failing)).rejects.toMatchObject({ code });
    await expect(open(silent)).rejects.toMatchObject({ code });
    expect(left().filter((file) => file.startsWith('inlay-browser-'))).toEqual([]);
  });
});

describe('findBrowser', () => {
  const find = (os: string, there: readonly string[], env: Readonly<Record<string, string>> = {}) =>
    findBrowser({ os, env, home: '/home/me', isProgram: (path) => there.includes(path) });

  it('looks where installers put browsers, and takes the named one before all others', () => {
    expect(find('linux', ['/usr/bin/chromium', '/opt/bin/microsoft-edge'], { PATH: '/opt/bin:/bin' })).toBe(
      '/opt/bin/microsoft-edge',
    );
    const mac = '/home/me/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge';
    expect(find('darwin', [mac])).toBe(mac);
    expect(find('linux', ['/usr/bin/chromium', '/my/chrome'], { CHROME_PATH: '/my/chrome' })).toBe(
      '/my/chrome',
    );
    expect(find('linux', ['/usr/bin/chromium'], { CHROME_PATH: '/gone' })).toBeUndefined();
    expect(find('linux', [])).toBeUndefined();
  });
});

describe('messages between page and runtime', () => {
  it('come back as they were', () => {
    const bytes = fc.uint8Array({ maxLength: 9 });
    const plain = fc.oneof(fc.integer(), fc.string(), fc.boolean(), fc.constant(null));
    const value = fc.dictionary(fc.stringMatching(/^[a-z]+$/), fc.oneof(bytes, plain, fc.array(plain)));
    fc.assert(
      fc.property(value, (message) => {
        expect(unpackMessage(packMessage(message))).toEqual({ ...message });
      }),
      { numRuns: 50 },
    );
  });
});
