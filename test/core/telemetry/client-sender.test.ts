import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { FetchInit } from '../../../src/core/platform.ts';
import { MAX_REQUEST_BYTES } from '../../../src/telemetry/report.ts';
import { createSender, split, type Sender } from '../../../src/telemetry/sender.ts';
import type { Sealed } from '../../../src/telemetry/spool-record.ts';
import { testPlatform, type TestPlatform } from '../platform.ts';

const sealed = (seq: number, bytes = 20): Sealed => ({ epoch: 'e', seq, text: `"${'x'.repeat(bytes - 2)}"` });

interface Request {
  readonly url: string;
  readonly init: FetchInit | undefined;
}

function connect(
  answer: (number: number) => Response | Promise<Response>,
  runtime = 'node',
): { sender: Sender; requests: Request[]; platform: TestPlatform } {
  const requests: Request[] = [];
  const platform = testPlatform({
    fetch: async (url, init) => {
      requests.push({ url, init });
      return answer(requests.length);
    },
  });
  return {
    requests,
    platform,
    sender: createSender({ platform: { ...platform, runtime }, url: 'https://sync.test', key: 'key' }),
  };
}

const took = (seqs: readonly number[], more: object = {}): Response =>
  Response.json({ done: seqs.map((seq) => ({ epoch: 'e', seq })), refused: [], ...more });

describe('a sender', () => {
  it('says which reports are there, which will never be, and how often the server wants to hear', async () => {
    const { sender } = connect(() =>
      Response.json({
        done: [{ epoch: 'e', seq: 0 }],
        refused: [
          { epoch: 'e', seq: 1, code: 'too_old' },
          { epoch: 'e', seq: 2, code: 'invalid' },
        ],
        next: 60,
      }),
    );
    expect(await sender.send([0, 1, 2].map((seq) => sealed(seq)))).toEqual({
      done: [{ epoch: 'e', seq: 0 }],
      refused: [
        { epoch: 'e', seq: 1, code: 'too_old' },
        { epoch: 'e', seq: 2, code: 'refused' },
      ],
      next: 60,
    });
  });

  it('shows its key, compresses, and asks pages for no permission beforehand', async () => {
    const { sender, requests } = connect(() => took([0]));
    await sender.send([sealed(0)]);
    const headers = new Headers(requests[0]?.init?.headers);
    expect(requests[0]?.url).toBe('https://sync.test/v1/reports');
    expect(headers.get('authorization')).toBe('Bearer key');
    expect([...(requests[0]?.init?.body as Uint8Array)].slice(0, 2)).toEqual([0x1f, 0x8b]);
    const page = connect(() => took([0]), 'web');
    await page.sender.send([sealed(0)], undefined, true);
    const asPage = new Headers(page.requests[0]?.init?.headers);
    expect([asPage.get('content-type'), asPage.get('content-encoding')]).toEqual(['text/plain', null]);
    expect(page.requests[0]?.init?.keepalive).toBe(true);
  });

  it('ends between two requests when people change their mind', async () => {
    let sent = 0;
    const platform = testPlatform({
      fetch: async () => {
        sent += 1;
        return took([0]);
      },
    });
    const sender = createSender({ platform, url: 'https://sync.test', mayReport: () => sent === 0 });
    const { done, failure } = await sender.send([sealed(0), sealed(1)], 70);
    expect([sent, done.length, failure !== undefined]).toEqual([1, 1, true]);
  });

  it('halves what is too long for the server, and gives up a report that is too long alone', async () => {
    const { sender, requests } = connect((number) =>
      number === 1 || number === 2 ? new Response(null, { status: 413 }) : took([number - 2]),
    );
    const { done, refused } = await sender.send([0, 1, 2].map((seq) => sealed(seq)));
    expect(requests.length).toBe(5);
    expect([done.map(({ seq }) => seq), refused]).toEqual([[1, 2, 3], []]);
    const alone = connect(() => new Response(null, { status: 413 }));
    expect((await alone.sender.send([sealed(0)])).refused).toEqual([
      { epoch: 'e', seq: 0, code: 'too_large' },
    ]);
  });

  it.each([408, 425, 429, 500, 502, 503, 504])('may send again after status %i', async (status) => {
    const { sender } = connect(() => new Response(null, { status, headers: { 'retry-after': '7' } }));
    const { done, refused, failure } = await sender.send([sealed(0)]);
    expect([done, refused, failure?.retryAfterMs]).toEqual([[], [], 7000]);
  });

  it('waits until the date that a server names', async () => {
    const { sender, platform } = connect(
      () =>
        new Response(null, {
          status: 429,
          headers: { 'retry-after': new Date(platform.now() + 90_000).toUTCString() },
        }),
    );
    expect((await sender.send([sealed(0)])).failure?.retryAfterMs).toBe(90_000);
  });

  it.each([
    [400, 'refused'],
    [401, 'refused'],
    [404, 'refused'],
    [410, 'too_old'],
  ])('gives up what is answered with status %i', async (status, code) => {
    const { sender } = connect(() => new Response(null, { status }));
    expect((await sender.send([sealed(0)])).refused).toEqual([{ epoch: 'e', seq: 0, code }]);
  });

  it.each(['<html>Log in first</html>', '{}', '{"done":[{"epoch":1}],"refused":[]}', 'null'])(
    'keeps its reports where something else answers: %s',
    async (body) => {
      const { sender } = connect(() => new Response(body));
      const { done, failure } = await sender.send([sealed(0)]);
      expect([done, failure?.isOffline]).toEqual([[], true]);
    },
  );

  it('keeps its reports where nobody answers for half a minute', async () => {
    const { sender, platform } = connect(() => new Promise(() => {}));
    const sending = sender.send([sealed(0)]);
    for (let turn = 0; platform.timers().length === 0 && turn < 1000; turn += 1)
      await new Promise((resolve) => {
        setTimeout(resolve, 0);
      });
    platform.advance(30_000);
    expect((await sending).failure?.message).toContain('30000 ms');
  });

  it('stops at the first failure', async () => {
    const { sender, requests } = connect((number) =>
      number === 1 ? took([0]) : new Response(null, { status: 503 }),
    );
    const { done, failure } = await sender.send([0, 1, 2].map((seq) => sealed(seq, 40_000)));
    expect([done.length, failure === undefined, requests.length]).toEqual([1, false, 2]);
  });

  it('keeps the order of reports and the length of requests', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 2, max: 70_000 })), (lengths) => {
        const reports = lengths.map((bytes, seq) => sealed(seq, bytes));
        const requests = split(reports, MAX_REQUEST_BYTES);
        expect(requests.flat()).toEqual(reports);
        for (const request of requests) {
          const bytes = request.reduce((sum, { text }) => sum + text.length + 1, 64);
          expect(request.length === 1 || bytes <= MAX_REQUEST_BYTES + 64).toBe(true);
        }
      }),
      { numRuns: 50 },
    );
  });
});
