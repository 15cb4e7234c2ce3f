import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import {
  createInlay,
  isInlayError,
  type Feeds,
  type Inlay,
  type LoadOptions,
  type Model,
  type NodeInlayOptions,
  type RunOptions,
} from 'inlay';
import { createMemoryStore } from 'inlay/stores/memory';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { acrossRows, addOne, lookUp, root } from './serving-fixture.ts';

/** A run of some tenths of a second. */
const LONG = 100_000;

interface Served {
  readonly inlay: Inlay;
  readonly model: Model;
}

async function serve(
  bytes: Uint8Array<ArrayBuffer>,
  load: LoadOptions = {},
  options: NodeInlayOptions = { placement: 'worker', workers: 1 },
): Promise<Served> {
  const inlay = createInlay({ device: 'cpu', store: createMemoryStore(), ...options });
  onTestFinished(() => inlay.close());
  return { inlay, model: await inlay.load(bytes, load) };
}

function queueOf(inlay: Inlay) {
  const [info] = inlay.info().models;
  if (info === undefined) throw new Error('No model is loaded.');
  return info.queue;
}

interface Ask extends RunOptions {
  /** Rounds of work; see {@link addOne}. */
  readonly rounds?: number;
}

async function ask(
  model: Model,
  x: number,
  { rounds = 0, ...options }: Ask = {},
): Promise<readonly number[]> {
  const { y } = await model.run({ x: [x, -x], rounds: [BigInt(rounds)] }, options);
  return Array.from(y?.data as Float32Array);
}

/** What {@link ask} gives. */
const sum = (x: number): readonly number[] => [x + 1, 1 - x];

/** Starts a long run. @returns its answer, when it has begun. */
async function occupy({ inlay, model }: Served): Promise<{ readonly answer: Promise<readonly number[]> }> {
  const answer = ask(model, 0, { rounds: LONG });
  await hasBegun(inlay);
  return { answer };
}

async function hasBegun(inlay: Inlay): Promise<void> {
  await vi.waitFor(() => expect(queueOf(inlay).running).toBeGreaterThan(0), { interval: 1 });
}

/** Makes calls until batches of at least eight have proved to pay. */
async function learnToBatch({ inlay, model }: Served, feeds: Feeds): Promise<void> {
  await vi.waitFor(
    async () => {
      await Promise.all(upTo(64).map(() => model.run(feeds)));
      expect(queueOf(inlay).lanes[0]?.batchCap).toBeGreaterThanOrEqual(8);
    },
    { interval: 0, timeout: 25_000 },
  );
}

/** Answers, and codes or reasons of rejections. */
async function outcomes(calls: readonly Promise<unknown>[]): Promise<readonly unknown[]> {
  const settled = await Promise.allSettled(calls);
  return settled.map((one) => {
    if (one.status === 'fulfilled') return one.value;
    return isInlayError(one.reason) ? one.reason.code : one.reason;
  });
}

const upTo = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

describe('aborting a call', () => {
  const reason = new Error('Nobody waits for it any more.');

  it('before it is made makes none', async () => {
    const { model } = await serve(addOne);
    await expect(ask(model, 1, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    expect(model.stats()).toMatchObject({ inFlight: 0, calls: { accepted: 0 } });
  });

  it('in the tick in which it is made leaves those of the same tick alone', async () => {
    const { model } = await serve(addOne);
    const controller = new AbortController();
    const calls = upTo(8).map((x) => ask(model, x, x === 3 ? { signal: controller.signal } : {}));
    controller.abort(reason);
    expect(await outcomes(calls)).toEqual(upTo(8).map((x) => (x === 3 ? reason : sum(x))));
    expect(model.stats().calls).toMatchObject({ accepted: 8, answered: 7, aborted: 1 });
  });

  it('while it waits takes it out of the queue at once', async () => {
    const served = await serve(addOne);
    const { model, inlay } = served;
    const { answer } = await occupy(served);
    const controller = new AbortController();
    const waiting = ask(model, 1, { signal: controller.signal });
    const other = ask(model, 2);
    expect(queueOf(inlay).waiting).toBe(2);
    controller.abort(reason);
    expect(queueOf(inlay).waiting).toBe(1);
    expect(await Promise.race([answer, waiting.catch((error: unknown) => error)])).toBe(reason);
    expect(await outcomes([answer, other])).toEqual([sum(0), sum(2)]);
  });

  it('while it runs rejects it at once, and the others of its batch get their answers', async () => {
    const served = await serve(addOne);
    const { model, inlay } = served;
    await learnToBatch(served, { x: [0, 0], rounds: [0n] });
    const controller = new AbortController();
    const calls = upTo(3).map((x) =>
      ask(model, x, { rounds: LONG, ...(x === 1 && { signal: controller.signal }) }),
    );
    await vi.waitFor(() => expect(queueOf(inlay).running).toBe(3), { interval: 1 });
    const order: string[] = [];
    const note = (name: string) => () => void order.push(name);
    void calls[0]?.then(note('answered'));
    calls[1]?.catch(note('aborted'));
    controller.abort(reason);
    expect(await outcomes(calls)).toEqual([sum(0), reason, sum(2)]);
    expect(order).toEqual(['aborted', 'answered']);
    expect(await ask(model, 5)).toEqual(sum(5));
    expect(model.stats()).toMatchObject({ inFlight: 0, calls: { aborted: 1, failed: 0 } });
  });

  it('after its answer changes nothing', async () => {
    const { model } = await serve(addOne);
    const controller = new AbortController();
    expect(await ask(model, 1, { signal: controller.signal })).toEqual(sum(1));
    controller.abort(reason);
    expect(model.stats().calls).toMatchObject({ answered: 1, aborted: 0 });
  });
});

describe('a deadline', () => {
  it('that is over while a long run goes on ends the call then, and not that run', async () => {
    const served = await serve(addOne);
    const { answer } = await occupy(served);
    const late = ask(served.model, 1, { deadlineMs: 2 }).catch((error: unknown) => error);
    expect(await Promise.race([answer, late])).toMatchObject({ code: 'ERR_INLAY_DEADLINE' });
    expect(await answer).toEqual(sum(0));
    expect(await ask(served.model, 3, { deadlineMs: 600_000 })).toEqual(sum(3));
  });

  it('that is shorter than a run takes is refused with the time after which to come back', async () => {
    const { model } = await serve(addOne, { deadlineMs: 1e-6 });
    const error: unknown = await ask(model, 1).catch((refusal: unknown) => refusal);
    expect(error).toMatchObject({ code: 'ERR_INLAY_DEADLINE', details: { reason: 'deadline_predicted' } });
    expect((error as { details: { retryAfterMs: number } }).details.retryAfterMs).toBeGreaterThan(0);
    expect(await ask(model, 2, { deadlineMs: 600_000 })).toEqual(sum(2));
  });
});

describe('a call that fails', () => {
  it.each(['worker', 'inline', 'process'] as const)(
    'is the only one of its batch that does (%s)',
    async (placement) => {
      const served = await serve(lookUp, {}, { placement, workers: 1 });
      const { model, inlay } = served;
      await learnToBatch(served, { index: [1n] });
      const before = model.stats();
      const look = async (index: number): Promise<readonly number[]> => {
        const { y } = await model.run({ index: [BigInt(index)] });
        return Array.from(y?.data as Float32Array);
      };
      for (const bad of [0, 13, 31]) {
        const calls = upTo(32).map((i) => look(i === bad ? 99 : i % 4));
        expect(await outcomes(calls)).toEqual(
          upTo(32).map((i) => (i === bad ? 'ERR_INLAY_RUN_FAILED' : [2 * (i % 4), (i % 4) ** 2])),
        );
      }
      const { calls, replays, inFlight } = model.stats();
      expect(calls.answered - before.calls.answered).toBe(93);
      expect({ failed: calls.failed, inFlight }).toEqual({ failed: 3, inFlight: 0 });
      expect(replays).toBeGreaterThan(0);
      expect(queueOf(inlay).unbatchable).toBeUndefined();
    },
  );

  it('gives NaN where its model does, and nobody else notices', async () => {
    const served = await serve(root);
    const { model, inlay } = served;
    await learnToBatch(served, { x: [1, 1] });
    const answers = await Promise.all(upTo(16).map((x) => model.run({ x: [x, -x] })));
    expect(answers.map(({ y }) => Array.from(y?.data as Float32Array))).toEqual(
      upTo(16).map((x) => [Math.fround(Math.sqrt(x)), x === 0 ? -0 : NaN]),
    );
    expect(queueOf(inlay).unbatchable).toBeUndefined();
  });
});

describe('many calls', () => {
  it('beyond those that may wait are refused at once, and those that were let in are answered', async () => {
    const served = await serve(addOne, { maxWaiting: 100 });
    const { answer } = await occupy(served);
    const results = await outcomes([answer, ...upTo(10_000).map((x) => ask(served.model, x))]);
    expect(results.filter((result) => result === 'ERR_INLAY_OVERLOADED')).toHaveLength(9900);
    expect(results.slice(0, 101)).toEqual([sum(0), ...upTo(100).map(sum)]);
    expect(served.model.stats()).toMatchObject({
      inFlight: 0,
      calls: { accepted: 101, answered: 101, rejected: { queue_full: 9900 } },
    });
  });

  it('that may wait are all answered, each with its own result', async () => {
    const { model, inlay } = await serve(addOne);
    const results = await Promise.all(upTo(10_000).map((x) => ask(model, x)));
    expect(results).toEqual(upTo(10_000).map(sum));
    expect(model.stats()).toMatchObject({ inFlight: 0, samples: 10_000, calls: { answered: 10_000 } });
    expect(queueOf(inlay)).toMatchObject({ waiting: 0, running: 0 });
  });

  it('of one that is larger than a batch come back whole', async () => {
    const { model } = await serve(root, { maxBatch: 16 });
    const x = Float32Array.from({ length: 2000 }, (_, i) => i);
    const { y } = await model.run({ x });
    expect(y?.shape).toEqual([1000, 2]);
    expect(y?.data).toEqual(x.map((value) => Math.fround(Math.sqrt(value))));
    expect(model.stats().batchSize.max).toBeLessThanOrEqual(16);
  });
});

describe('a model whose rows depend on each other', () => {
  it('is not batched, says why, and gives what it gives alone', async () => {
    const { model, inlay } = await serve(acrossRows);
    expect(queueOf(inlay).unbatchable).toMatch(/batched and solo results differ/);
    const answers = await Promise.all(upTo(20).map((x) => model.run({ x: [x, -x] })));
    expect(answers.map(({ y }) => Array.from(y?.data as Float32Array))).toEqual(upTo(20).map(() => [1, 1]));
    expect(model.stats()).toMatchObject({ batches: 20, dispatches: { solo: 20, full: 0, idle: 0 } });
    const { y } = await model.run({ x: new Float32Array(8) });
    expect(Array.from(y?.data as Float32Array)).toEqual(Array(8).fill(0.25));
  });
});

describe('closing', () => {
  it.each(['the model', 'the Inlay'])('%s while calls wait answers those that were let in', async (what) => {
    const served = await serve(addOne);
    const { model, inlay } = served;
    const { answer } = await occupy(served);
    const waiting = upTo(5).map((x) => ask(model, x));
    const closed = (what === 'the model' ? model : inlay).close();
    await setImmediate();
    expect(queueOf(inlay).waiting).toBe(5);
    expect(await outcomes([ask(model, 1)])).toEqual(['ERR_INLAY_CLOSED']);
    expect(await outcomes([answer, ...waiting])).toEqual([sum(0), ...upTo(5).map(sum)]);
    await closed;
    expect(inlay.info().models).toEqual([]);
  });
});

/** Processes that this one has started. */
function children(): readonly number[] {
  const tasks = '/proc/self/task';
  return readdirSync(tasks).flatMap((task) =>
    readFileSync(`${tasks}/${task}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number),
  );
}
const canSeeChildren = existsSync(`/proc/self/task/${process.pid}/children`);
if (!canSeeChildren) console.warn('Skipped: this system does not list child processes in /proc.');

describe.skipIf(!canSeeChildren)('a child process that is killed in the middle of a batch', () => {
  const killDuringBatch = async (load: LoadOptions): Promise<readonly [Served, readonly unknown[]]> => {
    const before = new Set(children());
    const served = await serve(addOne, load, { placement: 'process', workers: 1 });
    const [pid] = children().filter((child) => !before.has(child));
    if (pid === undefined) throw new Error('The child process is missing.');
    await learnToBatch(served, { x: [0, 0], rounds: [0n] });
    const calls = upTo(4).map((x) => ask(served.model, x, { rounds: LONG }));
    await vi.waitFor(() => expect(queueOf(served.inlay).running).toBe(4), { interval: 1 });
    process.kill(pid, 'SIGKILL');
    return [served, await outcomes(calls)];
  };

  it('costs time only: its calls are made again', async () => {
    const [{ model, inlay }, results] = await killDuringBatch({});
    expect(results).toEqual(upTo(4).map(sum));
    expect(model.stats()).toMatchObject({ inFlight: 0, replays: 4, calls: { failed: 0 } });
    expect(queueOf(inlay)).toMatchObject({ waiting: 0, running: 0 });
  });

  it('fails its calls where they must not be made again, and the next one is answered', async () => {
    const [{ model }, results] = await killDuringBatch({ replay: false });
    expect(results).toEqual(Array(4).fill('ERR_INLAY_WORKER_LOST'));
    expect(model.stats()).toMatchObject({ inFlight: 0, replays: 0, calls: { failed: 4 } });
    expect(await ask(model, 7)).toEqual(sum(7));
  });
});
