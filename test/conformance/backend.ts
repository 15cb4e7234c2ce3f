import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Backend, Session, TensorMap } from '../../src/core/backend.ts';
import type { DType } from '../../src/core/dtype.ts';
import { BackendError, InputError, isInlayError, ModelError, StateError } from '../../src/core/errors.ts';
import { Tensor } from '../../src/core/tensor.ts';
import { floats, onnxModels, type BackendModels } from './backend-models.ts';

/** What {@link testBackend} has to know about a backend. */
export interface BackendTraits {
  /** Execution provider to test. */
  readonly provider: string;
  readonly placement: Session['placement'];
  /** Models that the library reads. Default: ONNX. */
  readonly models?: BackendModels;
  /** Runs a model through the library itself, for comparison. Feeds are not changed. */
  readonly runRaw: (model: Uint8Array, feeds: TensorMap) => Promise<TensorMap>;
  /** Whether 4-bit integers can be fed. */
  readonly packedIntegers: boolean;
  /** Writes a file for the length of the suite. Absent: paths are not tested. */
  readonly writeFile?: (name: string, bytes: Uint8Array) => Promise<string>;
}

/** The error that `promise` is rejected with. */
export async function errorOf(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error('The promise was fulfilled.');
}

/** What every backend does, whatever library it adapts and wherever its sessions live. */
export function testBackend(name: string, createBackend: () => Backend, traits: BackendTraits): void {
  const { provider, placement, runRaw, writeFile, models = onnxModels } = traits;

  describe(`${name} keeps the backend's contract`, () => {
    let backend: Backend;
    beforeAll(() => {
      backend = createBackend();
    });
    afterAll(() => backend.close());

    const open = (bytes: Uint8Array): Promise<Session> => backend.createSession({ bytes }, { provider });
    const using = async (bytes: Uint8Array, use: (session: Session) => Promise<void>): Promise<void> => {
      const session = await open(bytes);
      try {
        await use(session);
      } finally {
        await session.release();
      }
    };
    const pair = (n: number): { a: Tensor; b: Tensor } => ({
      a: new Tensor('float32', [n, 4], floats(n * 4, 7)),
      b: new Tensor('float32', [n, 4], floats(n * 4, 8)),
    });

    it('lists the provider without a refusal', async () => {
      const listed = (await backend.providers()).find((candidate) => candidate.name === provider);
      expect(listed).toBeDefined();
      expect(listed?.refusal).toBeUndefined();
    });

    it('lists the CPU last', async () => {
      const devices = (await backend.providers()).map(({ device }) => device);
      const first = devices.indexOf('cpu');
      expect(first === -1 ? [] : devices.slice(first).filter((device) => device !== 'cpu')).toEqual([]);
    });

    it('refuses a provider that it does not have', async () => {
      const error = await errorOf(backend.createSession({ bytes: models.add() }, { provider: 'abacus' }));
      expect(error).toBeInstanceOf(BackendError);
      expect(error).toMatchObject({ code: 'ERR_INLAY_DEVICE_UNAVAILABLE' });
      expect(String(error)).toContain('"abacus"');
    });

    it('says where a session runs', () =>
      using(models.add(), async (session) => {
        expect(session.provider).toBe(provider);
        expect(session.placement).toBe(placement);
        await Promise.resolve();
      }));

    it('reads the signature, with symbolic, fixed and nameless dimensions', () =>
      using(models.identity('float32', ['n', null, 3]), async ({ signature }) => {
        const shape = [models.namesDimensions ? 'n' : null, null, 3];
        expect(signature).toEqual({
          inputs: [{ name: 'x', dtype: 'float32', shape }],
          outputs: [{ name: 'y', dtype: 'float32', shape }],
        });
        await Promise.resolve();
      }));

    describe('runs', () => {
      const pixels = (n: number): Float32Array => floats(n * 64);
      const cases: readonly [string, () => Uint8Array, (n: number) => TensorMap][] = [
        ['an addition', models.add, pair],
        ['a perceptron', models.perceptron, (n) => ({ image: new Tensor('float32', [n, 64], pixels(n)) })],
        [
          'a convolution',
          models.convolution,
          (n) => ({ x: new Tensor('float32', [n, ...models.convolutionAxes], pixels(n)) }),
        ],
        ['several outputs', models.several, (n) => ({ x: new Tensor('float32', [n, 5], floats(n * 5)) })],
      ];
      for (const [what, model, feedsOf] of cases) {
        it(`gives the bits of the library itself: ${what}`, () =>
          using(model(), async (session) => {
            for (const n of [1, 3, 8]) {
              const feeds = feedsOf(n);
              const outputs = await session.run(feeds);
              expectSame(outputs, await runRaw(model(), feeds));
              expectOwned(outputs);
            }
          }));
      }

      for (const [dtype, sample] of Object.entries(models.samples)) {
        it(`carries ${dtype} both ways, bit by bit`, () =>
          using(models.identity(dtype as DType), async (session) => {
            expectSame(await session.run({ x: sample }), { y: sample });
          }));
      }

      const { dequantize } = models;
      for (const dtype of dequantize === undefined ? [] : (['int4', 'uint4'] as const)) {
        const nibbles = new Tensor(dtype, [3], new Uint8Array([0x21, 0x0f]));
        it(`${traits.packedIntegers ? 'takes' : 'refuses'} packed ${dtype}, as the library does`, () =>
          using(dequantize?.(dtype) as Uint8Array, async (session) => {
            const run = session.run({ x: nibbles });
            if (traits.packedIntegers) {
              expect((await run).y?.toArray()).toEqual([0.5, 1, dtype === 'int4' ? -0.5 : 7.5]);
            } else {
              const error = await errorOf(run);
              expect(error).toBeInstanceOf(InputError);
              expect(error).toMatchObject({ code: 'ERR_INLAY_FEED_DTYPE' });
            }
          }));
      }

      it('runs a batch of size 0', () =>
        using(models.add(), async (session) => {
          const { y } = await session.run(pair(0));
          expect(y).toMatchObject({ dtype: 'float32', shape: [0, 4] });
          expect(y?.data).toHaveLength(0);
        }));

      it('runs a scalar', () =>
        using(models.identity(models.scalar.dtype, []), async (session) => {
          const x = models.scalar;
          expectSame(await session.run({ x }), { y: x });
        }));

      it('computes only the outputs that are asked for', () =>
        using(models.several(), async (session) => {
          const feeds = { x: new Tensor('float32', [1, 5], floats(5)) };
          const outputs = await session.run(feeds, { outputs: ['indices'] });
          expect(Object.keys(outputs)).toEqual(['indices']);
        }));

      it('keeps concurrent runs apart', () =>
        using(models.add(), async (session) => {
          const ones = new Tensor('float32', [1, 4], new Float32Array(4).fill(1));
          const results = await Promise.all(
            Array.from({ length: 20 }, (_, i) =>
              session.run({ a: new Tensor('float32', [1, 4], new Float32Array(4).fill(i)), b: ones }),
            ),
          );
          expect(results.map(({ y }) => y?.data[0])).toEqual(Array.from({ length: 20 }, (_, i) => i + 1));
        }));

      it('keeps sessions apart', async () => {
        const [add, top] = await Promise.all([open(models.add()), open(models.several())]);
        const [sum, best] = await Promise.all([
          add.run(pair(2)),
          top.run({ x: new Tensor('float32', [1, 5], new Float32Array([1, 5, 2, 4, 3])) }),
        ]);
        expect(sum.y?.shape).toEqual([2, 4]);
        expect(Array.from(best.indices?.data ?? [], Number)).toEqual([1, 3]);
        await Promise.all([add.release(), top.release()]);
      });
    });

    describe('feeds stay the caller’s', () => {
      const x = Float32Array.from({ length: 10_000 }, (_, i) => i);

      it('leaves small and large buffers as they were', () =>
        using(models.identity('float32'), async (session) => {
          for (const length of [3, 10_000]) {
            const data = x.slice(0, length);
            await session.run({ x: new Tensor('float32', [length], data) });
            expect(data).toEqual(x.slice(0, length));
          }
        }));

      it('leaves the neighbours of a view alone, also when it may take the buffer', () =>
        using(models.identity('float32'), async (session) => {
          const pool = x.slice();
          const view = new Tensor('float32', [5000], pool.subarray(100, 5100));
          const { y } = await session.run({ x: view }, { transfer: true });
          expect(y?.data).toEqual(x.slice(100, 5100));
          expect(pool).toEqual(x);
        }));

      it('takes several feeds that share one buffer', () =>
        using(models.add(), async (session) => {
          const whole = new Tensor('float32', [4, 4], x.slice(0, 16));
          const twice = await session.run({ a: whole, b: whole });
          expect(Array.from(twice.y?.data as Float32Array)).toEqual(
            Array.from(x.slice(0, 16), (value) => 2 * value),
          );
          const part = new Tensor('float32', [4, 4], new Float32Array(whole.data.buffer as ArrayBuffer));
          const again = await session.run({ a: whole, b: part }, { transfer: true });
          expect(again.y?.data).toEqual(twice.y?.data);
        }));

      const testSharedMemory = (): void => {
        it('takes shared memory without sharing it', () =>
          using(models.identity('float32'), async (session) => {
            for (const transfer of [false, true]) {
              const shared = new Float32Array(new SharedArrayBuffer(40_000));
              shared.set(x);
              const { y } = await session.run({ x: new Tensor('float32', [10_000], shared) }, { transfer });
              expect(y?.data).toEqual(x);
              expect(shared[9999]).toBe(9999);
            }
          }));
      };
      // Browsers have it only in isolated pages.
      if (typeof SharedArrayBuffer === 'function') testSharedMemory();
      else console.log('Feeds in shared memory are not tested: there is no SharedArrayBuffer here.');

      it('refuses a buffer that was handed over before', () =>
        using(models.add(), async (session) => {
          const { a, b } = pair(1);
          structuredClone(a.data, { transfer: [(a.data as Float32Array).buffer as ArrayBuffer] });
          const error = await errorOf(session.run({ a, b }));
          expect(error).toBeInstanceOf(InputError);
          expect(error).toMatchObject({ code: 'ERR_INLAY_FEED_DETACHED' });
          expect(String(error)).toContain('"a"');
        }));
    });

    describe('errors', () => {
      it('fails a run with the words of the library, and goes on', () =>
        using(models.failing(), async (session) => {
          const of = (length: number): Tensor => new Tensor('float32', [length], floats(length));
          const error = await errorOf(session.run({ a: of(3), b: of(4) }));
          expect(error).toBeInstanceOf(BackendError);
          expect(error).toMatchObject({ code: 'ERR_INLAY_RUN_FAILED', name: 'BackendError' });
          expect((error as Error).message).toMatch(/broadcast/);
          expect((error as Error).cause).toBeInstanceOf(Error);
          expect((await session.run({ a: of(3), b: of(3) })).y?.shape).toEqual([3]);
        }));

      it('refuses a feed of the wrong shape or dtype, a missing one and an unknown output', () =>
        using(models.add(), async (session) => {
          const { a, b } = pair(1);
          const wide = new Tensor('float32', [1, 5], floats(5));
          const whole = new Tensor('int32', [1, 4], new Int32Array(4));
          // All at once: an error belongs to its own run.
          const errors = await Promise.all(
            [
              session.run({ a, b: wide }),
              session.run({ a, b: whole }),
              session.run({ a }),
              session.run({ a, b }, { outputs: ['z'] }),
            ].map((run) => errorOf(run)),
          );
          expect(errors.every((error) => error instanceof InputError)).toBe(true);
          expect(errors.map((error) => (error as InputError).code)).toEqual([
            'ERR_INLAY_FEED_SHAPE',
            'ERR_INLAY_FEED_DTYPE',
            'ERR_INLAY_FEED_MISSING',
            'ERR_INLAY_OUTPUT_UNKNOWN',
          ]);
        }));

      const invalid: readonly [string, Uint8Array][] = [
        ['no bytes', new Uint8Array(0)],
        ['noise', new Uint8Array(1000).fill(0xab)],
        ['a web page', new TextEncoder().encode('<!doctype html><title>Not found</title>')],
        ['the first half of a model', models.add().subarray(0, models.add().length >> 1)],
        ['a model without its last byte', models.add().subarray(0, -1)],
      ];
      for (const [what, bytes] of invalid) {
        it(`refuses ${what}`, async () => {
          const error = await errorOf(open(bytes));
          expect(error).toBeInstanceOf(ModelError);
          expect(error).toMatchObject({ code: 'ERR_INLAY_MODEL_INVALID' });
          expect((error as Error).cause).toBeInstanceOf(Error);
        });
      }

      it('refuses an operator or an element type that the library does not know', async () => {
        for (const model of models.unsupported) {
          const error = await errorOf(open(model()));
          expect(error).toBeInstanceOf(ModelError);
          expect(error).toMatchObject({ code: 'ERR_INLAY_MODEL_UNSUPPORTED' });
        }
      });

      it('writes one line without places in the library’s source', async () => {
        const error = await errorOf(open(models.refused.model()));
        expect(error).toMatchObject({ code: 'ERR_INLAY_MODEL_UNSUPPORTED' });
        expect((error as Error).message).toMatch(models.refused.message);
        expect((error as Error).message).not.toMatch(/\.(cc|h):\d/);
      });
    });

    const testFiles = (write: NonNullable<typeof writeFile>): void => {
      const { extension } = models;
      it('loads a model by its path', async () => {
        const path = await write(`add.${extension}`, models.add());
        const session = await backend.createSession({ path }, { provider });
        expectSame(await session.run(pair(2)), await runRaw(models.add(), pair(2)));
        await session.release();
      });

      it('says which file is missing', async () => {
        const path = `${await write(`there.${extension}`, models.add())}.gone`;
        const error = await errorOf(backend.createSession({ path }, { provider }));
        expect(error).toBeInstanceOf(ModelError);
        expect(error).toMatchObject({ code: 'ERR_INLAY_MODEL_NOT_FOUND' });
        expect(String(error)).toContain(`there.${extension}.gone`);
      });

      it('refuses a truncated file', async () => {
        const path = await write(`short.${extension}`, models.add().subarray(0, 40));
        const error = await errorOf(backend.createSession({ path }, { provider }));
        expect(error).toMatchObject({ code: 'ERR_INLAY_MODEL_INVALID' });
        expect(String(error)).toContain(`short.${extension}`);
      });
    };
    if (writeFile !== undefined) describe('files', () => testFiles(writeFile));

    describe('the end of a session', () => {
      it('lets runs in flight finish', async () => {
        const session = await open(models.perceptron());
        const runs = Array.from({ length: 5 }, () =>
          session.run({ image: new Tensor('float32', [1, 64], floats(64)) }),
        );
        await session.release();
        expect(await Promise.all(runs)).toHaveLength(5);
      });

      it('refuses runs afterwards and may be released again', async () => {
        const session = await open(models.add());
        await Promise.all([session.release(), session.release()]);
        const error = await errorOf(session.run(pair(1)));
        expect(error).toBeInstanceOf(StateError);
        expect(error).toMatchObject({ code: 'ERR_INLAY_CLOSED' });
        await session.release();
      });
    });

    describe('the end of a backend', () => {
      it('lets runs in flight finish, then refuses everything, and may be closed again', async () => {
        const own = createBackend();
        const session = await own.createSession({ bytes: models.add() }, { provider });
        const runs = Array.from({ length: 5 }, () => session.run(pair(1)));
        await Promise.all([own.close(), own.close()]);
        expect(await Promise.all(runs)).toHaveLength(5);
        for (const promise of [
          session.run(pair(1)),
          own.createSession({ bytes: models.add() }, { provider }),
        ]) {
          const error = await errorOf(promise);
          expect(error).toBeInstanceOf(StateError);
          expect(isInlayError(error) && error.code).toBe('ERR_INLAY_CLOSED');
        }
        await session.release();
        await own.close();
      });

      it('closes unused', async () => {
        await createBackend().close();
      });
    });
  });
}

/** Compares element by element and bit by bit. */
function expectSame(actual: TensorMap, expected: TensorMap): void {
  expect(Object.keys(actual).sort()).toEqual(Object.keys(expected).sort());
  for (const [name, tensor] of Object.entries(expected)) {
    const other = actual[name] as Tensor;
    expect(other).toBeInstanceOf(Tensor);
    expect([other.dtype, other.shape]).toEqual([tensor.dtype, tensor.shape]);
    expect(bitsOf(other)).toEqual(bitsOf(tensor));
  }
}

function bitsOf({ data }: Tensor): unknown {
  return ArrayBuffer.isView(data) ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength) : data;
}

/** Owned by the caller: no memory of the library or of another output. */
function expectOwned(outputs: TensorMap): void {
  const buffers = Object.values(outputs).map(({ data }) => (data as Float32Array).buffer);
  expect(new Set(buffers).size).toBe(buffers.length);
}
