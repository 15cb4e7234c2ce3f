import { createHash, randomFillSync, webcrypto } from 'node:crypto';
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { concatBytes, toHex, toUtf8 } from '../../src/core/bytes.ts';
import type { FetchInit } from '../../src/core/platform.ts';
import { reactNativePlatform, type AppState } from '../../src/platform-react-native.ts';
import { fetchBytes } from '../../src/update/fetch.ts';
import { codeOf } from '../conformance/store.ts';
import { fakeExpo, fakeRnfs, removeAll } from './react-native-files.ts';

afterEach(() => void vi.unstubAllGlobals());

const abc = 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad';

describe('randomness', () => {
  const filled = (array: Uint8Array): Uint8Array => randomFillSync(array);

  it('comes from what the app gives, or from the global crypto', () => {
    vi.stubGlobal('crypto', undefined);
    expect(reactNativePlatform({ crypto: { getRandomValues: filled } }).randomBytes(16)).toHaveLength(16);
    vi.stubGlobal('crypto', { getRandomValues: filled });
    const platform = reactNativePlatform({ crypto: {} });
    expect(toHex(platform.randomBytes(16))).not.toBe(toHex(platform.randomBytes(16)));
  });

  it('is asked for in words that help where there is none', () => {
    vi.stubGlobal('crypto', undefined);
    expect(() => reactNativePlatform().randomBytes(16)).toThrow(
      /expo-crypto.*react-native-get-random-values/,
    );
  });
});

describe('hashing', () => {
  const hashOf = (platform: ReturnType<typeof reactNativePlatform>): string => {
    const hash = platform.createSha256();
    hash.update(toUtf8('a'));
    hash.update(toUtf8('bc'));
    const digest = hash.digest();
    expect(digest.buffer.byteLength).toBe(32);
    return toHex(digest);
  };

  it('is native where the library offers it', async () => {
    vi.stubGlobal('crypto', undefined);
    const asked: string[] = [];
    const platform = reactNativePlatform({
      crypto: {
        createHash: (algorithm) => {
          asked.push(algorithm);
          return createHash(algorithm);
        },
        digest: (algorithm, bytes) => {
          asked.push(algorithm);
          return webcrypto.subtle.digest(algorithm, bytes);
        },
      },
    });
    expect(hashOf(platform)).toBe(abc);
    expect(toHex((await platform.digest?.(toUtf8('abc'))) ?? new Uint8Array())).toBe(abc);
    expect(asked).toEqual(['sha256', 'SHA-256']);
  });

  it('works without any library', () => {
    vi.stubGlobal('crypto', undefined);
    const platform = reactNativePlatform();
    expect(hashOf(platform)).toBe(abc);
    expect(platform.digest).toBeUndefined();
  });

  it('takes WebCrypto where an app has installed one', async () => {
    vi.stubGlobal('crypto', { subtle: webcrypto.subtle });
    expect(toHex((await reactNativePlatform().digest?.(toUtf8('abc'))) ?? new Uint8Array())).toBe(abc);
  });
});

describe('time', () => {
  it('goes on without performance, setImmediate and MessageChannel', async () => {
    for (const name of ['performance', 'setImmediate', 'MessageChannel']) vi.stubGlobal(name, undefined);
    const platform = reactNativePlatform();
    expect(platform.monotonicMs()).toBeGreaterThan(1e12);
    const order: string[] = [];
    await new Promise<void>((resolve) => {
      platform.setTimer(() => {
        order.push('timer');
        resolve();
      }, 0);
      const cancel = platform.setTimer(() => order.push('cancelled'), 0);
      cancel();
      platform.defer(() => order.push('deferred'));
      void Promise.resolve().then(() => order.push('reaction'));
    });
    expect(order.indexOf('deferred')).toBeLessThan(order.indexOf('timer'));
    expect(order).not.toContain('cancelled');
  });
});

describe('the app', () => {
  it('is active unless it is in the background, and says when it comes back', () => {
    const listeners = new Set<(state: string) => void>();
    const appState = {
      currentState: 'active',
      addEventListener: (_: 'change', listener: (state: string) => void) => {
        listeners.add(listener);
        return { remove: () => listeners.delete(listener) };
      },
    } satisfies AppState;
    const platform = reactNativePlatform({ appState });
    let returns = 0;
    const stop = platform.onActive?.(() => {
      returns += 1;
    });
    let hides = 0;
    const forget = platform.onHide?.(() => {
      hides += 1;
    });
    const states: (boolean | undefined)[] = [];
    for (const state of ['unknown', 'inactive', 'background', 'active']) {
      appState.currentState = state;
      for (const listener of listeners) listener(state);
      states.push(platform.isActive?.());
    }
    expect(states).toEqual([true, true, false, true]);
    expect(returns).toBe(1);
    expect(hides).toBe(3);
    stop?.();
    forget?.();
    expect(listeners.size).toBe(0);
    expect(reactNativePlatform().isActive).toBeUndefined();
    expect(reactNativePlatform().onHide).toBeUndefined();
  });

  it('tells rollouts and downloads what the app knows of the device', () => {
    let isMetered = true;
    const platform = reactNativePlatform({
      traits: { os: 'android', memoryMiB: 4096 },
      conditions: () => ({ isMetered }),
    });
    expect(platform.traits).toEqual({ os: 'android', memoryMiB: 4096 });
    expect(platform.conditions?.()).toEqual({ isMetered: true });
    isMetered = false;
    expect(platform.conditions?.()).toEqual({ isMetered: false });
    expect(reactNativePlatform().conditions).toBeUndefined();
  });
});

describe.each([
  ['expo-file-system', fakeExpo],
  ['react-native-fs', fakeRnfs],
])('files through %s', (_, fake) => {
  it('are found by path, by URL and relative to the documents', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'inlay app-'));
    try {
      const { files } = reactNativePlatform({ files: fake(directory) });
      const documents = join(directory, 'Documents');
      mkdirSync(documents, { recursive: true });
      writeFileSync(join(documents, 'a b.onnx'), 'abc');
      const path = join(documents, 'a b.onnx');
      for (const name of [path, `file://${encodeURI(path)}`, new URL(`file://${path}`), 'a b.onnx']) {
        expect(files?.resolve(name)).toBe(path);
      }
      expect(await files?.size(path)).toBe(3);
      expect(await files?.sha256(path)).toBe(abc);
      const stamp = await files?.stamp(path);
      writeFileSync(path, 'abcd');
      expect(await files?.stamp(path)).not.toBe(stamp);
      expect(await files?.size(`${path}.gone`)).toBeUndefined();
      expect(await files?.stamp(`${path}.gone`)).toBeUndefined();
      const large = new Uint8Array(1_100_000).map((__, i) => i >> 5);
      writeFileSync(path, large);
      expect(await files?.sha256(path)).toBe(createHash('sha256').update(large).digest('hex'));
    } finally {
      removeAll(directory);
    }
  });
});

describe('requests', () => {
  let server: Server | undefined;
  afterEach(() => void server?.close());

  /** `XMLHttpRequest` on fetch, with the members that are used. */
  class FakeXhr {
    responseType = '';
    withCredentials = true;
    status = 0;
    response: ArrayBuffer | null = null;
    onload = (): void => {};
    onerror = (): void => {};
    onprogress?: (event: { loaded: number }) => void;
    readonly #controller = new AbortController();
    readonly #sent = new Headers();
    #received = new Headers();
    #url = '';
    open(_method: string, url: string): void {
      this.#url = url;
    }
    setRequestHeader(name: string, value: string): void {
      this.#sent.set(name, value);
    }
    getAllResponseHeaders(): string {
      return [...this.#received].map(([name, value]) => `${name}: ${value}\r\n`).join('');
    }
    abort(): void {
      this.#controller.abort();
    }
    send(): void {
      fetch(this.#url, { headers: this.#sent, signal: this.#controller.signal })
        .then(async (answer) => {
          this.#received = answer.headers;
          this.status = answer.status;
          const pieces: Uint8Array[] = [];
          let loaded = 0;
          for await (const piece of answer.body ?? []) {
            pieces.push(piece);
            loaded += piece.length;
            this.onprogress?.({ loaded });
          }
          this.response = answer.status === 304 ? null : concatBytes(pieces).buffer;
          this.onload();
        })
        .catch(() => this.onerror());
    }
  }

  const serve = async (): Promise<{ readonly url: string; readonly asked: string[] }> => {
    const asked: string[] = [];
    server = createServer((request, response) => {
      asked.push(request.url ?? '');
      if (request.url === '/silent') return;
      if (request.url === '/endless') {
        const send = (): void => {
          while (!response.destroyed && response.write(Buffer.alloc(65_536)));
        };
        response.on('drain', send);
        send();
        return;
      }
      response.setHeader('etag', '"7"');
      if (request.headers['if-none-match'] === '"7"') response.writeHead(304).end();
      else if (request.url === '/model') response.end(Buffer.from([0, 128, 255]));
      else
        response.writeHead(404, { 'content-type': 'application/json' }).end('{"code":"ERR_INLAY_NOT_FOUND"}');
    });
    await new Promise<void>((resolve) => server?.listen(0, '127.0.0.1', resolve));
    return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked };
  };

  it('give bytes as they are, at the URL as it is', async () => {
    const { url, asked } = await serve();
    vi.stubGlobal('XMLHttpRequest', FakeXhr);
    const platform = reactNativePlatform();
    const got = await fetchBytes(platform, `${url}/model`, { capBytes: 10 });
    expect(got).toMatchObject({ status: 200, bytes: Uint8Array.of(0, 128, 255), etag: '"7"' });
    const again = await fetchBytes(platform, `${url}/model`, {
      capBytes: 10,
      headers: { 'if-none-match': '"7"' },
    });
    expect(again).toMatchObject({ status: 304, bytes: new Uint8Array() });
    expect(asked).toEqual(['/model', '/model']);
  });

  it('fail as requests do elsewhere', async () => {
    const { url } = await serve();
    vi.stubGlobal('XMLHttpRequest', FakeXhr);
    const platform = reactNativePlatform();
    const fails = (path: string, options: object = {}): Promise<string> =>
      codeOf(fetchBytes(platform, path, { capBytes: 10, ...options }));
    expect(await fails(`${url}/none`)).toBe('ERR_INLAY_HTTP_STATUS');
    expect(await fails('http://127.0.0.1:9/')).toBe('ERR_INLAY_NETWORK');
    expect(await fails(`${url}/silent`, { timeoutMs: 50 })).toBe('ERR_INLAY_NETWORK');
  });

  it('are not silent while bytes come', async () => {
    const { url } = await serve();
    vi.stubGlobal('XMLHttpRequest', FakeXhr);
    const timers = new Set<() => void>();
    // Whatever is not cancelled before the first byte has come counts as due then.
    const platform = {
      ...reactNativePlatform(),
      setTimer: (task: () => void) => {
        timers.add(task);
        return () => void timers.delete(task);
      },
    };
    const { fetch: send } = platform;
    const due = {
      ...platform,
      fetch: (address: string, init: FetchInit = {}) => {
        const before = [...timers];
        return send(address, init).then((answer) => {
          for (const task of before) if (timers.has(task)) task();
          return answer;
        });
      },
    };
    expect((await fetchBytes(due, `${url}/model`, { capBytes: 10 })).bytes).toHaveLength(3);
    expect(timers.size).toBe(0);
  });

  it('end when more comes than is accepted', async () => {
    const { url } = await serve();
    const closed = new Promise<void>((resolve) => {
      server?.on('connection', (socket) => socket.on('close', () => resolve()));
    });
    vi.stubGlobal('XMLHttpRequest', FakeXhr);
    const got = fetchBytes(reactNativePlatform(), `${url}/endless`, { capBytes: 1000 });
    expect(await codeOf(got)).toBe('ERR_INLAY_LENGTH');
    await closed;
  });

  it('end when they are given up', async () => {
    const { url } = await serve();
    vi.stubGlobal('XMLHttpRequest', FakeXhr);
    const controller = new AbortController();
    const request = reactNativePlatform().fetch(`${url}/silent`, { signal: controller.signal });
    controller.abort();
    await expect(request).rejects.toThrow(/given up/);
    const late = reactNativePlatform().fetch(`${url}/model`, { signal: controller.signal });
    await expect(late).rejects.toThrow(/given up/);
  });

  it('go through what the app gives', async () => {
    const { url } = await serve();
    vi.stubGlobal('XMLHttpRequest', undefined);
    const own = vi.fn((address: string, init?: RequestInit) => fetch(address, init));
    const platform = reactNativePlatform({ fetch: own });
    expect((await fetchBytes(platform, `${url}/model`, { capBytes: 10 })).bytes).toHaveLength(3);
    expect(own).toHaveBeenCalledOnce();
    expect((await reactNativePlatform().fetch(`${url}/model`)).ok).toBe(true);
  });
});
