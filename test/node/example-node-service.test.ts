import { spawn, spawnSync, type ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { Tensor } from 'inlay';
import { createGraph, encodeModel } from 'inlay/onnx';
import { afterAll, describe, expect, it, onTestFinished, vi } from 'vitest';

const example = new URL('../../examples/node-service/', import.meta.url);
const pathOf = (file: string): string => fileURLToPath(new URL(file, example));
const { drawSet } = (await import(new URL('../digits/draw.mjs', example).href)) as {
  drawSet(seed: number, count: number): { readonly labels: Uint8Array; readonly pixels: Float32Array };
};
const folder = mkdtempSync(join(tmpdir(), 'inlay-service-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** A model with the signature of the digits model, whose run adds one `rounds` times before it answers with zeros. */
function slowModel(rounds: bigint): string {
  const graph = createGraph({ name: 'slow', opset: 17 });
  graph.input('image', 'float32', ['batch', 1, 28, 28]);
  const body = graph.subgraph('body');
  body.input('i', 'int64', []);
  body.input('go', 'bool', []);
  body.input('sum', 'float32', ['batch', 784]);
  body.constant('one', new Tensor('float32', [1], new Float32Array([1])));
  body.node('Identity', ['go'], {}, { outputs: 'goOn' });
  body.node('Add', ['sum', 'one'], {}, { outputs: 'next' });
  body.output('goOn', 'bool', []);
  body.output('next', 'float32', ['batch', 784]);
  graph.initializer('rounds', new Tensor('int64', [], BigInt64Array.of(rounds)));
  graph.initializer('nothing', new Tensor('float32', [784, 10], new Float32Array(7840)));
  const sum = graph.node('Loop', ['rounds', '', graph.node('Flatten', ['image'])], { body });
  graph.node('MatMul', [sum, 'nothing'], {}, { outputs: 'logits' });
  graph.output('logits', 'float32', ['batch', 10]);
  const path = join(folder, `slow-${rounds}.onnx`);
  writeFileSync(path, encodeModel(graph.toModel()));
  return path;
}

interface Service {
  readonly url: string;
  readonly child: ChildProcessByStdio<null, Readable, null>;
  /** Value of a metric, summed over its labels. */
  metric(name: string, label?: string): Promise<number>;
}

async function start(name: 'server' | 'naive', ...args: string[]): Promise<Service> {
  const child = spawn(process.execPath, [pathOf(`${name}.mjs`), '--port', '0', ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  onTestFinished(async () => {
    if (child.exitCode !== null) return;
    child.kill('SIGKILL');
    await once(child, 'exit');
  });
  const [line] = (await once(createInterface(child.stdout), 'line')) as [string];
  const { url } = JSON.parse(line) as { url: string };
  return {
    url,
    child,
    metric: async (metric, label = '') => {
      const text = await (await fetch(`${url}/metrics`)).text();
      const lines = text.split('\n').filter((row) => row.startsWith(`${metric}{`) && row.includes(label));
      return lines.reduce((sum, row) => sum + Number(row.slice(row.lastIndexOf(' '))), 0);
    },
  };
}

const blank = new Float32Array(784);
function classify(
  url: string,
  image: Float32Array<ArrayBuffer> = blank,
  headers: Record<string, string> = {},
): Promise<Response> {
  return fetch(`${url}/classify`, {
    method: 'POST',
    headers: { 'content-type': 'application/octet-stream', ...headers },
    body: image,
  });
}

const { labels, pixels } = drawSet(5, 40);
const imageOf = (index: number): Float32Array<ArrayBuffer> => pixels.slice(784 * index, 784 * (index + 1));

describe('the service', () => {
  it.each(['server', 'naive'] as const)('reads digits from JSON and from bytes (%s)', async (name) => {
    const { url } = await start(name);
    expect((await fetch(`${url}/healthz`)).status).toBe(200);
    const answers = await Promise.all(
      Array.from(labels, async (_, index) => {
        const image = imageOf(index);
        const bytes = await classify(url, image);
        const json = await fetch(`${url}/classify`, {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify({ pixels: Array.from(image) }),
        });
        const [one, other] = (await Promise.all([bytes.json(), json.json()])) as {
          digit: number;
          scores: number[];
        }[];
        expect(one?.digit).toBe(other?.digit);
        expect(one?.scores).toHaveLength(10);
        return one?.digit;
      }),
    );
    const right = answers.filter((digit, index) => digit === labels[index]);
    expect(right.length).toBeGreaterThanOrEqual(38);
  });

  it('refuses what is no image, and goes on', async () => {
    const { url } = await start('server');
    const post = (type: string, body: string): Promise<Response> =>
      fetch(`${url}/classify`, { method: 'POST', headers: { 'content-type': type }, body });
    expect((await classify(url, new Float32Array(783))).status).toBe(400);
    expect((await post('application/json', '{"pixels":[1,2]}')).status).toBe(400);
    expect((await post('application/json', '{"pixels":')).status).toBe(400);
    expect((await post('text/plain', 'seven')).status).toBe(415);
    expect((await classify(url, blank, { 'x-deadline-ms': '0' })).status).toBe(400);
    expect((await classify(url)).status).toBe(200);
  });

  it('is ready only when its model is loaded', async () => {
    const bad = join(folder, 'bad.onnx');
    writeFileSync(bad, 'no model');
    const { status, stdout } = spawnSync(process.execPath, [
      pathOf('server.mjs'),
      '--port',
      '0',
      '--model',
      bad,
    ]);
    expect(String(stdout)).toBe('');
    expect(status).not.toBe(0);
  });
});

describe('a service under more load than it can carry', () => {
  it('answers 503 with Retry-After when a deadline cannot be kept', async () => {
    const { url, metric } = await start('server');
    const responses = [
      await classify(url, blank, { 'x-deadline-ms': '0.0001' }),
      await fetch(`${url}/classify?deadlineMs=0.0001`, {
        method: 'POST',
        headers: { 'content-type': 'application/octet-stream' },
        body: blank,
      }),
    ];
    for (const response of responses) {
      expect(response.status).toBe(503);
      expect(Number(response.headers.get('retry-after'))).toBeGreaterThanOrEqual(1);
      expect(await response.json()).toMatchObject({ code: 'ERR_INLAY_DEADLINE' });
    }
    expect(await metric('inlay_calls_rejected_total')).toBe(2);
    expect((await classify(url, blank, { 'x-deadline-ms': '20000' })).status).toBe(200);
  });

  it('answers 503 with Retry-After when too many wait, and the others as usual', async () => {
    const { url } = await start('server', '--model', slowModel(40_000n), '--max-waiting', '2');
    const responses = await Promise.all(Array.from({ length: 24 }, () => classify(url)));
    const refused = responses.filter(({ status }) => status === 503);
    expect(refused.length).toBeGreaterThan(0);
    expect(responses.filter(({ status }) => status === 200).length).toBe(24 - refused.length);
    expect(refused.length).toBeLessThan(24);
    for (const response of refused) {
      expect(response.headers.get('retry-after')).toBe('1');
      expect(await response.json()).toMatchObject({ code: 'ERR_INLAY_OVERLOADED' });
    }
  });
});

describe('a client that goes away', () => {
  it('takes its call out of the queue', async () => {
    const { url, metric } = await start('server', '--model', slowModel(40_000n));
    const clients = Array.from({ length: 6 }, () => {
      const asking = request(`${url}/classify`, {
        agent: new Agent(),
        method: 'POST',
        headers: { 'content-type': 'application/octet-stream' },
      });
      asking.on('error', () => {});
      asking.end(Buffer.from(blank.buffer));
      return asking;
    });
    await vi.waitFor(async () => expect(await metric('inlay_calls_accepted_total')).toBe(6));
    const answered = await metric('inlay_calls_answered_total');
    for (const asking of clients) asking.destroy();
    await vi.waitFor(async () => {
      const aborted = await metric('inlay_calls_aborted_total');
      const done = await metric('inlay_calls_answered_total');
      expect(aborted).toBeGreaterThan(0);
      expect(aborted + done).toBe(6);
    });
    expect(answered).toBeLessThan(6);
    expect((await classify(url)).status).toBe(200);
  });
});

describe('a service that is told to end', () => {
  it('answers every request that it was sent, says that it is not ready, and ends with 0', async () => {
    const { url, child, metric } = await start('server', '--model', slowModel(10_000n), '--drain-ms', '800');
    const agent = new Agent({ keepAlive: true, maxSockets: 8 });
    onTestFinished(() => agent.destroy());
    let isOver = false;
    const statuses: number[] = [];
    const connections: (string | undefined)[] = [];
    const ask = (): Promise<void> =>
      new Promise((resolve, reject) => {
        const asking = request(`${url}/classify`, {
          agent,
          method: 'POST',
          headers: { 'content-type': 'application/octet-stream' },
        });
        asking.once('error', reject).once('response', (response) => {
          statuses.push(response.statusCode ?? 0);
          connections.push(response.headers.connection);
          response.resume().once('end', resolve);
        });
        asking.end(Buffer.from(blank.buffer));
      });
    const caller = async (): Promise<void> => {
      while (!isOver) await ask();
    };
    const callers = Array.from({ length: 8 }, caller);
    await vi.waitFor(async () => expect(await metric('inlay_calls_answered_total')).toBeGreaterThan(8));
    const ended = once(child, 'exit');
    child.kill('SIGTERM');
    await vi.waitFor(async () => expect((await fetch(`${url}/healthz`)).status).toBe(503));
    // A load balancer has seen it and sends nothing more; what is under way is answered.
    const before = statuses.length;
    isOver = true;
    await Promise.all(callers);
    expect(statuses.length).toBeGreaterThanOrEqual(before + 8);
    expect(new Set(statuses)).toEqual(new Set([200]));
    expect(connections.at(-1)).toBe('close');
    expect(await ended).toEqual([0, null]);
  });
});

describe('the comparison', () => {
  it('loads both services and prints what came of it', () => {
    const args = ['--seconds', '0.3', '--rounds', '1', '--only', 'deep', '--json'];
    const { status, stdout, stderr } = spawnSync(process.execPath, [pathOf('main.mjs'), ...args], {
      encoding: 'utf8',
    });
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    const rows = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(rows.map(({ load }) => load)).toEqual(['1 caller', '64 callers', '1.5× load', '3× load']);
    for (const row of rows) {
      for (const name of ['naive', 'server']) {
        const counts = row[name] as Record<string, number>;
        expect(counts['sent']).toBeGreaterThan(0);
        const settled = ['answered', 'refused', 'failed', 'givenUp'].map((key) => counts[key] ?? NaN);
        expect(settled.reduce((sum, count) => sum + count)).toBe(counts['sent']);
        expect(counts['failed']).toBe(0);
      }
    }
  });
});
