import { describe, expect, it } from 'vitest';
import { fromUtf8 } from '../../../src/core/bytes.ts';
import { fetchBytes, fetchJson } from '../../../src/update/fetch.ts';
import { testPlatform, testStart, until, type TestPlatform } from '../platform.ts';

const url = 'https://sync.test/v1/tip?token=secret';
const answering = (answer: () => Response | Promise<Response>): TestPlatform =>
  testPlatform({ fetch: async () => answer() });
const get = (platform: TestPlatform, options: object = {}): Promise<unknown> =>
  fetchBytes(platform, url, { capBytes: 100, ...options });
const failsWith = (code: string, details: object = {}): unknown =>
  expect.objectContaining({ code, details: expect.objectContaining(details) });

describe('fetchBytes', () => {
  it('reads a body and its tag', async () => {
    const platform = answering(() => new Response('hello', { headers: { etag: '"1"' } }));
    const { bytes, etag, status } = await fetchBytes(platform, url, { capBytes: 5 });
    expect([fromUtf8(bytes), etag, status]).toEqual(['hello', '"1"', 200]);
    expect(platform.timers()).toEqual([]);
  });

  it.each([undefined, 0, 3, 11, 12, 13, 100, 2 ** 40, NaN, -1])(
    'reads what comes, though the server says that it has %s bytes',
    async (said) => {
      const pieces = ['hel', 'lo, ', 'world'].map((text) => new TextEncoder().encode(text));
      const body = new ReadableStream({
        pull: (controller) => {
          const piece = pieces.shift();
          if (piece === undefined) controller.close();
          else controller.enqueue(piece);
        },
      });
      const headers = said === undefined ? {} : { 'content-length': String(said) };
      const platform = answering(() => new Response(body, { headers: headers as Record<string, string> }));
      const { bytes } = await fetchBytes(platform, url, { capBytes: 2 ** 41 });
      expect(fromUtf8(bytes)).toBe('hello, world');
    },
  );

  it('names a server that cannot be reached', async () => {
    await expect(get(testPlatform())).rejects.toThrow(
      failsWith('ERR_INLAY_NETWORK', { url: 'https://sync.test/v1/tip', retryable: true }),
    );
  });

  it('does not show the query, which may carry a token', async () => {
    const error = await get(testPlatform()).catch((reason: unknown) => reason);
    expect(String(error)).toContain('https://sync.test/v1/tip cannot be reached');
    expect(JSON.stringify(error) + String(error)).not.toContain('secret');
  });

  it.each([
    [404, false],
    [403, false],
    [429, true],
    [500, true],
    [503, true],
    [304, false],
  ])('reports status %i', async (status, retryable) => {
    const platform = answering(() => new Response(null, { status }));
    await expect(get(platform)).rejects.toThrow(failsWith('ERR_INLAY_HTTP_STATUS', { status, retryable }));
  });

  it('keeps the code that the server gives', async () => {
    const platform = answering(() => Response.json({ code: 'ERR_INLAY_NOT_FOUND' }, { status: 503 }));
    await expect(get(platform)).rejects.toThrow(
      failsWith('ERR_INLAY_HTTP_STATUS', { serverCode: 'ERR_INLAY_NOT_FOUND' }),
    );
  });

  it.each([
    ['7', 7000],
    [new Date(testStart + 5000).toUTCString(), 5000],
    [new Date(testStart - 5000).toUTCString(), 0],
  ])('understands Retry-After: %s', async (value, retryAfterMs) => {
    const platform = answering(() => new Response(null, { status: 503, headers: { 'retry-after': value } }));
    await expect(get(platform)).rejects.toThrow(failsWith('ERR_INLAY_HTTP_STATUS', { retryAfterMs }));
  });

  it('accepts 304 for a conditional request', async () => {
    const platform = answering(() => new Response(null, { status: 304 }));
    expect(await get(platform, { headers: { 'if-none-match': '"1"' } })).toMatchObject({ status: 304 });
  });

  it('names a web page that answers in place of the data', async () => {
    const platform = answering(
      () =>
        new Response('<!doctype html>\n<title>Sign in</title>', {
          headers: { 'content-type': 'text/html; x' },
        }),
    );
    await expect(get(platform)).rejects.toThrow(
      /sync\.test\/v1\/tip answers .* "<!doctype html> <title>Sign in/,
    );
    await expect(get(platform)).rejects.toThrow(failsWith('ERR_INLAY_HTTP_CONTENT', { retryable: false }));
  });

  it('endless data: stops reading at the cap', async () => {
    let pulled = 0;
    const platform = answering(
      () =>
        new Response(
          new ReadableStream({
            pull: (stream) => {
              pulled += 1;
              stream.enqueue(new Uint8Array(10));
            },
          }),
        ),
    );
    await expect(get(platform)).rejects.toThrow(failsWith('ERR_INLAY_LENGTH'));
    expect(pulled).toBeLessThan(15);
  });

  it('slow retrieval: gives up on a server that does not begin to answer', async () => {
    const platform = answering(() => new Promise(() => {}));
    const fetching = get(platform, { timeoutMs: 300 });
    platform.advance(300);
    await expect(fetching).rejects.toThrow(failsWith('ERR_INLAY_NETWORK', { retryable: true }));
    await expect(fetching).rejects.toThrow(/no answer within 300 ms/);
  });

  it('slow retrieval: gives up on a body that does not go on', async () => {
    const platform = answering(
      () =>
        new Response(
          new ReadableStream({
            start: (stream) => {
              stream.enqueue(Uint8Array.of(1));
            },
          }),
        ),
    );
    const fetching = get(platform, { timeoutMs: 300 });
    let failed = false;
    fetching.catch(() => {
      failed = true;
    });
    for (let turns = 0; !failed && turns < 10; turns += 1) {
      await until(() => failed || platform.timers().length > 0);
      platform.advance(299);
      await until(() => true);
      platform.advance(1);
      await new Promise((resolve) => {
        setTimeout(resolve, 0);
      });
    }
    await expect(fetching).rejects.toThrow(/no answer within 300 ms/);
  });

  describe('where the answer comes only with its whole body', () => {
    /** A `fetch` without streams, which heeds no signal; `piece` tells of what has come. */
    const whole = () => {
      let resolve: ((response: Response) => void) | undefined;
      let piece: ((loadedBytes: number) => void) | undefined;
      let isAborted = false;
      const platform = testPlatform({
        fetch: (_, init) => {
          piece = init?.onActivity;
          init?.signal?.addEventListener('abort', () => {
            isAborted = true;
          });
          return new Promise((settle) => {
            resolve = settle;
          });
        },
      });
      return {
        platform,
        piece: (loadedBytes: number) => piece?.(loadedBytes),
        resolve: (response: Response) => resolve?.(response),
        isAborted: () => isAborted,
      };
    };

    it('waits for as long as it goes on, whatever that takes', async () => {
      const { platform, piece, resolve } = whole();
      const fetching = get(platform, { timeoutMs: 300 });
      for (let loaded = 1; loaded <= 10; loaded += 1) {
        platform.advance(299);
        piece(loaded);
        expect(platform.timers()).toEqual([300]);
      }
      resolve(new Response('0123456789'));
      expect(await fetching).toMatchObject({ bytes: new TextEncoder().encode('0123456789') });
      piece(11);
      expect(platform.timers()).toEqual([]);
    });

    it('slow retrieval: gives up when it no longer goes on', async () => {
      const { platform, piece, isAborted } = whole();
      const fetching = get(platform, { timeoutMs: 300 });
      platform.advance(299);
      piece(1);
      platform.advance(300);
      await expect(fetching).rejects.toThrow(/no answer within 300 ms/);
      expect(isAborted()).toBe(true);
      piece(2);
      expect(platform.timers()).toEqual([]);
    });

    it('endless data: ends the request beyond the cap', async () => {
      const { platform, piece, isAborted } = whole();
      const fetching = get(platform, { capBytes: 100_000 });
      piece(100_000);
      expect(isAborted()).toBe(false);
      piece(100_001);
      expect(isAborted()).toBe(true);
      await expect(fetching).rejects.toThrow(failsWith('ERR_INLAY_LENGTH', { capBytes: 100_000 }));
      expect(platform.timers()).toEqual([]);
    });

    it('still tells what a server says whose error is longer than what was asked for', async () => {
      const { platform, piece, resolve } = whole();
      const fetching = get(platform, { capBytes: 10 });
      piece(5000);
      resolve(new Response('x'.repeat(5000), { status: 404 }));
      await expect(fetching).rejects.toThrow(failsWith('ERR_INLAY_HTTP_STATUS', { status: 404 }));
    });
  });

  it('names a connection that breaks in the middle', async () => {
    const platform = answering(
      () =>
        new Response(
          new ReadableStream({
            pull: (stream) => {
              stream.error(new TypeError('terminated'));
            },
          }),
        ),
    );
    await expect(get(platform)).rejects.toThrow(failsWith('ERR_INLAY_NETWORK', { retryable: true }));
  });

  it('throws the reason of an abort', async () => {
    const controller = new AbortController();
    const fetching = get(
      answering(() => new Promise(() => {})),
      { signal: controller.signal },
    );
    controller.abort(new Error('stopped'));
    await expect(fetching).rejects.toThrow('stopped');
    await expect(get(testPlatform(), { signal: controller.signal })).rejects.toThrow('stopped');
  });

  it('reads bodies where fetch gives no streams', async () => {
    const response = {
      ok: true,
      status: 200,
      headers: new Headers(),
      arrayBuffer: async () => new ArrayBuffer(3),
    };
    const platform = answering(() => response as Response);
    expect(await get(platform)).toMatchObject({ bytes: new Uint8Array(3) });
  });
});

describe('fetchJson', () => {
  it('parses the body', async () => {
    const platform = answering(() => new Response('{"a":1}'));
    expect(await fetchJson(platform, url, { capBytes: 100 })).toMatchObject({ json: { a: 1 } });
  });

  it('names a body that is no JSON', async () => {
    const platform = answering(() => new Response('surprise'));
    await expect(fetchJson(platform, url, { capBytes: 100 })).rejects.toThrow(
      failsWith('ERR_INLAY_HTTP_CONTENT', { begins: 'surprise' }),
    );
  });
});
