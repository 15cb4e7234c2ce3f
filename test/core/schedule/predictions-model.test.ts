import fc from 'fast-check';
import { expect, it } from 'vitest';
import type { TensorMap } from '../../../src/core/backend.ts';
import { Tensor } from '../../../src/core/tensor.ts';
import { createPredictions, type PredictionsStats } from '../../../src/schedule/predictions.ts';
import { testPlatform } from '../platform.ts';

const inputs = 6;
const floats = (...values: number[]): Tensor<'float32'> =>
  new Tensor('float32', [values.length], Float32Array.from(values));

/** What the model of this test says; answers differ in size. */
const answerOf = (model: number, value: number): TensorMap => ({
  y: floats(model, value),
  z: new Tensor('float32', [20 * (value % inputs)], new Float32Array(20 * (value % inputs)).fill(value)),
});

/** Memory that the answer to each input takes, as an ample cache counts it. */
async function measureSizes(): Promise<readonly number[]> {
  const sizes: number[] = [];
  for (let input = 0; input < inputs; input += 1) {
    const predictions = createPredictions(testPlatform(), { admitAt: 1 });
    await predictions.run({}, { x: floats(input) }, {}, async () => answerOf(0, input));
    sizes.push(predictions.stats().sizeBytes);
  }
  return sizes;
}

type Step =
  | { do: 'call'; model: number; input: number; outputs: string[] | undefined; isAbortable: boolean }
  | { do: 'land' | 'fail' | 'abort' | 'spoil'; which: number }
  | { do: 'wait'; ms: number }
  | { do: 'forget'; model: number }
  | { do: 'clear' };

const which = fc.nat({ max: 30 });
const model = fc.nat({ max: 1 });
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 120,
    arbitrary: fc.record({
      do: fc.constant('call' as const),
      model,
      input: fc.nat({ max: inputs - 1 }),
      outputs: fc.constantFrom<string[] | undefined>(undefined, ['y'], ['z'], ['z', 'y']),
      isAbortable: fc.boolean(),
    }),
  },
  { weight: 120, arbitrary: fc.record({ do: fc.constant('land' as const), which }) },
  { weight: 10, arbitrary: fc.record({ do: fc.constant('fail' as const), which }) },
  { weight: 40, arbitrary: fc.record({ do: fc.constant('abort' as const), which }) },
  { weight: 20, arbitrary: fc.record({ do: fc.constant('spoil' as const), which }) },
  { weight: 10, arbitrary: fc.record({ do: fc.constant('wait' as const), ms: fc.nat({ max: 60 }) }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('forget' as const), model }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('clear' as const) }) },
);

/** How a call ends: with an answer, or with a reason. */
type End = { readonly outputs: TensorMap } | { readonly reason: unknown };

interface Call {
  readonly model: number;
  readonly outputs: string[] | undefined;
  readonly feed: Tensor<'float32'>;
  readonly abort: AbortController | undefined;
  run?: {
    signal: AbortSignal | undefined;
    end: (outputs: TensorMap) => void;
    fail: (reason: unknown) => void;
  };
  expected?: End;
  actual?: End;
  isChecked?: boolean;
}

interface Flight {
  readonly key: string;
  readonly input: number;
  starter: Call;
  waiting: Call[];
}

it('answers every call once and rightly, within its memory, whatever happens in which order', async () => {
  const sizes = await measureSizes();
  const totals = { hits: 0, joined: 0, evicted: 0, restarts: 0, abandoned: 0 };

  await fc.assert(
    fc.asyncProperty(
      fc.record({
        admitAt: fc.integer({ min: 1, max: 3 }),
        maxBytes: fc.integer({ min: 6, max: 12 }).map((times) => times * (sizes[3] as number)),
        maxAgeMs: fc.constantFrom(100, Infinity),
      }),
      fc.array(step, { minLength: 60, maxLength: 250, size: 'max' }),
      async (options, steps) => {
        const platform = testPlatform();
        const predictions = createPredictions(platform, options);
        const models = [{}, {}];

        // What must happen, told in the plainest way.
        const generations = [0, 0];
        const calls: Call[] = [];
        let flights: Flight[] = [];
        let kept: { key: string; model: number; size: number; at: number }[] = [];
        let seen: string[] = [];
        const counts = { hits: 0, misses: 0, joined: 0, admitted: 0, evicted: 0 };
        const keyOf = (of: number, input: number): string => `${of}/${generations[of]}/${input}`;
        const used = (): number => kept.reduce((sum, { size }) => sum + size, 0);
        const answer = (call: Call, value: number): void => {
          const all = Object.entries(answerOf(call.model, value));
          call.expected = {
            outputs: Object.fromEntries(all.filter(([name]) => call.outputs?.includes(name) ?? true)),
          };
        };
        const evict = (isGone: (entry: (typeof kept)[number]) => boolean): void => {
          const left = kept.filter((entry) => !isGone(entry));
          counts.evicted += kept.length - left.length;
          kept = left;
        };
        const spoilt = (call: Call, input: number): boolean => call.feed.data[0] !== input;

        const ask = (call: Call, input: number): void => {
          const key = keyOf(call.model, input);
          evict((entry) => entry.key === key && platform.monotonicMs() - entry.at >= options.maxAgeMs);
          const entry = kept.find((candidate) => candidate.key === key);
          if (entry !== undefined) {
            counts.hits += 1;
            kept = [...kept.filter((other) => other !== entry), entry];
            answer(call, input);
            return;
          }
          seen.push(key);
          const flight = flights.find((other) => other.key === key && other.waiting.length > 0);
          if (flight !== undefined) {
            counts.joined += 1;
            flight.waiting.push(call);
            return;
          }
          counts.misses += 1;
          flights.push({ key, input, starter: call, waiting: [call] });
        };

        const land = (flight: Flight): void => {
          const { key, input, starter, waiting } = flight;
          const value = starter.feed.data[0] as number;
          starter.run?.end(answerOf(starter.model, value));
          const others = waiting.filter((call) => call !== starter);
          const size = sizes[input] as number;
          const isKept =
            waiting.length > 0 &&
            seen.filter((other) => other === key).length >= options.admitAt &&
            key === keyOf(starter.model, input) &&
            size <= options.maxBytes / 8;
          if (spoilt(starter, input) && (isKept || others.length > 0)) {
            if (waiting.includes(starter)) answer(starter, value);
            const [next] = others;
            if (next === undefined) flights = flights.filter((other) => other !== flight);
            else Object.assign(flight, { starter: next, waiting: others });
            totals.restarts += Number(next !== undefined);
            return;
          }
          for (const call of waiting) answer(call, value);
          flights = flights.filter((other) => other !== flight);
          if (!isKept) return;
          while (used() + size > options.maxBytes) evict((entry) => entry === kept[0]);
          kept.push({ key, model: starter.model, size, at: platform.monotonicMs() });
          counts.admitted += 1;
        };

        const start = ({ model: of, input, outputs, isAbortable }: Step & { do: 'call' }): void => {
          const abort = isAbortable ? new AbortController() : undefined;
          const call: Call = { model: of, outputs, feed: floats(input), abort };
          calls.push(call);
          ask(call, input);
          const compute = (signal: AbortSignal | undefined): Promise<TensorMap> =>
            new Promise((end, fail) => {
              expect(call.run).toBeUndefined();
              call.run = { signal, end, fail };
            });
          const given = { ...(outputs && { outputs }), ...(abort && { signal: abort.signal }) };
          predictions.run(models[of] as object, { x: call.feed }, given, compute).then(
            (all) => {
              expect(call.actual).toBeUndefined();
              call.actual = { outputs: structuredCopy(all) };
              for (const { data } of Object.values(all)) (data as Float32Array).fill(Number.NaN);
            },
            (reason: unknown) => {
              expect(call.actual).toBeUndefined();
              call.actual = { reason };
            },
          );
        };

        const take = (next: Step): void => {
          if (next.do === 'call') start(next);
          else if (next.do === 'wait') platform.advance(next.ms);
          else if (next.do === 'clear') {
            predictions.clear();
            evict(() => true);
            seen = [];
            generations.forEach((generation, of) => {
              generations[of] = generation + 1;
            });
          } else if (next.do === 'forget') {
            predictions.forget(models[next.model] as object);
            evict((entry) => entry.model === next.model);
            generations[next.model] = (generations[next.model] as number) + 1;
          } else if (next.do === 'spoil') {
            const flight = flights[next.which % flights.length];
            const call = flight && [flight.starter, ...flight.waiting][next.which % 3];
            if (call !== undefined) call.feed.data[0] = inputs + (call.feed.data[0] as number);
          } else if (next.do === 'abort') {
            const flight = flights[next.which % flights.length];
            const call = flight?.waiting.find(({ abort }) => abort !== undefined);
            if (flight === undefined || call === undefined) return;
            flight.waiting = flight.waiting.filter((other) => other !== call);
            call.expected = { reason: next };
            call.abort?.abort(next);
            totals.abandoned += Number(flight.waiting.length === 0);
          } else {
            const flight = flights[next.which % flights.length];
            if (flight === undefined) return;
            if (next.do === 'land') {
              land(flight);
              return;
            }
            for (const call of flight.waiting) call.expected = { reason: next };
            flights = flights.filter((other) => other !== flight);
            flight.starter.run?.fail(next);
          }
        };

        const check = async (): Promise<void> => {
          for (let turn = 0; turn < 12; turn += 1) await Promise.resolve();
          for (const call of calls) {
            if (call.isChecked) continue;
            expect(call.actual).toEqual(call.expected);
            call.isChecked = call.actual !== undefined;
          }
          for (const { starter, waiting } of flights) {
            expect(starter.run).toBeDefined();
            expect(starter.run?.signal !== undefined).toBe(starter.abort !== undefined);
            if (starter.run?.signal) expect(starter.run.signal.aborted).toBe(waiting.length === 0);
          }
          const stats = predictions.stats();
          const expected: PredictionsStats = { ...counts, entries: kept.length, sizeBytes: used() };
          expect(stats).toEqual(expected);
          expect(stats.sizeBytes).toBeLessThanOrEqual(options.maxBytes);
          expect(stats.admitted - stats.evicted).toBe(stats.entries);
          expect(stats.hits + stats.misses + stats.joined).toBe(calls.length);
        };

        for (const next of steps) {
          take(next);
          await check();
        }
        while (flights.length > 0) {
          land(flights[0] as Flight);
          await check();
        }
        for (const call of calls) expect(call.actual).toBeDefined();
        totals.hits += counts.hits;
        totals.joined += counts.joined;
        totals.evicted += counts.evicted;
      },
    ),
    { numRuns: 80 },
  );

  for (const [what, count] of Object.entries(totals)) expect(count, what).toBeGreaterThan(10);
});

/** Copies an answer, so that its owner can write to it. */
function structuredCopy(outputs: TensorMap): TensorMap {
  return Object.fromEntries(
    Object.entries(outputs).map(([name, { shape, data }]) => [
      name,
      new Tensor('float32', [...shape], (data as Float32Array).slice()),
    ]),
  );
}
