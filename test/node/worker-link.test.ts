import { MessageChannel } from 'node:worker_threads';
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { ModelError, StateError } from '../../src/core/errors.ts';
import { Tensor } from '../../src/core/tensor.ts';
import {
  connect,
  Packed,
  packTensors,
  serve,
  toTensors,
  type Endpoint,
  type Link,
} from '../../src/workers/link.ts';
import { SAMPLES } from '../conformance/backend-models.ts';
import { errorOf } from '../conformance/backend.ts';

const api = {
  double: async (value: number) => value * 2,
  fail: async (kind: 'typed' | 'foreign' | 'text' | 'deep'): Promise<never> => {
    if (kind === 'text') throw 'a string';
    if (kind === 'foreign') throw Object.assign(new RangeError('Too far.'), { code: 'EFAR' });
    const cause = new TypeError('The reason.', {
      cause: kind === 'deep' ? new Error('The root.') : undefined,
    });
    throw new ModelError('ERR_INLAY_MODEL_INVALID', 'The model is broken.', {
      details: { sizeBytes: 3 },
      cause,
    });
  },
  forever: () => new Promise<never>(() => {}),
  unsendable: async (): Promise<unknown> => () => {},
  take: async (value: unknown) => typeof value,
  give: async () => {
    const bytes = new Uint8Array(100_000);
    return new Packed({ bytes }, [bytes.buffer]);
  },
};

describe.each(Object.keys(api) as (keyof typeof api)[])('a link whose short way is `%s`', (short) => {
  let ports: MessageChannel | undefined;
  const busy: boolean[] = [];
  const oldest: (string | undefined)[] = [];
  const open = (): Link<typeof api> => {
    ports = new MessageChannel();
    busy.length = 0;
    oldest.length = 0;
    serve(api, ports.port2 as unknown as Endpoint, short);
    return connect<typeof api>(ports.port1 as unknown as Endpoint, {
      methods: Object.keys(api) as (keyof typeof api)[],
      short,
      onBusy: (state) => busy.push(state),
      onOldest: (name) => oldest.push(name),
    });
  };
  afterEach(() => {
    ports?.port1.close();
  });

  it('returns values, also to calls at the same time', async () => {
    const { calls } = open();
    expect(await Promise.all([1, 2, 3].map((value) => calls.double(value)))).toEqual([2, 4, 6]);
  });

  it('keeps class, code, details and causes of errors', async () => {
    const error = await errorOf(open().calls.fail('deep'));
    expect(error).toBeInstanceOf(ModelError);
    expect(error).toMatchObject({
      code: 'ERR_INLAY_MODEL_INVALID',
      message: 'The model is broken.',
      details: { sizeBytes: 3 },
      cause: { name: 'TypeError', message: 'The reason.', cause: { message: 'The root.' } },
    });
  });

  it('keeps name and code of foreign errors, and the text of what is no error', async () => {
    const { calls } = open();
    expect(await errorOf(calls.fail('foreign'))).toMatchObject({
      name: 'RangeError',
      message: 'Too far.',
      code: 'EFAR',
    });
    expect(await errorOf(calls.fail('text'))).toMatchObject({ message: 'a string' });
  });

  it('rejects a call whose arguments or result cannot be sent, and goes on', async () => {
    const { calls } = open();
    for (const promise of [calls.take(() => {}), calls.unsendable()]) {
      expect(await errorOf(promise)).toMatchObject({ name: 'BackendError', code: 'ERR_INLAY_RUN_FAILED' });
    }
    expect(await calls.double(4)).toBe(8);
    expect(busy.at(-1)).toBe(false);
  });

  it('rejects every call in flight and every later one when it fails', async () => {
    const link = open();
    const inFlight = [link.calls.forever(), link.calls.forever(), link.calls.double(1)];
    const failure = new StateError('ERR_INLAY_CLOSED', 'Gone.');
    link.fail(failure);
    link.fail(new Error('Another one.'));
    for (const promise of [...inFlight, link.calls.double(1)]) expect(await errorOf(promise)).toBe(failure);
  });

  it('says when it is busy, and when it is not any more', async () => {
    const { calls } = open();
    await Promise.all([calls.double(1), calls.double(2)]);
    expect(busy).toEqual([true, false]);
    await errorOf(calls.fail('typed'));
    expect(busy).toEqual([true, false, true, false]);
  });

  it('says which call has waited longest, whenever that is another one', async () => {
    const link = open();
    await Promise.all([link.calls.double(1), link.calls.take(2)]);
    expect([oldest[0], oldest.at(-1)]).toEqual(['double', undefined]);
    oldest.length = 0;
    const forever = link.calls.forever();
    await Promise.all([link.calls.double(1), link.calls.double(2)]);
    expect(oldest).toEqual(['forever']);
    link.fail(new StateError('ERR_INLAY_CLOSED', 'Gone.'));
    await errorOf(forever);
    expect(oldest).toEqual(['forever', undefined]);
  });

  it('hands packed buffers over', async () => {
    const result = (await open().calls.give()) as unknown as { bytes: Uint8Array };
    expect(result.bytes).toHaveLength(100_000);
  });
});

describe('packTensors', () => {
  const send = (tensors: Record<string, Tensor>, handOver: boolean): ReturnType<typeof toTensors> => {
    const packed = packTensors(tensors, handOver);
    return toTensors(structuredClone(packed.value, { transfer: packed.buffers }));
  };

  it('carries every dtype', () => {
    const tensors = SAMPLES as Record<string, Tensor>;
    for (const handOver of [false, true]) {
      const copies = Object.fromEntries(Object.entries(tensors).map(([name, each]) => [name, copyOf(each)]));
      expect(send(copies, handOver)).toEqual(tensors);
    }
  });

  it('sends no more of a buffer than the tensor covers', () => {
    const pool = new Float32Array(100_000);
    const { value, buffers } = packTensors({ x: new Tensor('float32', [2], pool.subarray(5, 7)) }, false);
    expect((value.x?.data as Float32Array).buffer.byteLength).toBe(8);
    expect(buffers).not.toContain(pool.buffer);
  });

  it('copies a Node buffer out of its pool', () => {
    const bytes = Buffer.from('abc');
    const { value, buffers } = packTensors({ x: new Tensor('uint8', [3], bytes) }, true);
    expect((value.x?.data as Uint8Array).buffer.byteLength).toBe(3);
    expect(buffers).not.toContain(bytes.buffer);
    expect(bytes.toString()).toBe('abc');
  });

  it('names a buffer once that several tensors cover', () => {
    const data = new Float32Array(4);
    const x = new Tensor('float32', [4], data);
    const y = new Tensor('int32', [4], new Int32Array(data.buffer));
    expect(packTensors({ x, y }, true).buffers).toEqual([data.buffer]);
  });

  it('keeps values, neighbours and callers’ buffers for any mix of views', () => {
    const view = fc.record({
      start: fc.nat(3000),
      length: fc.nat(3000),
      shared: fc.boolean(),
      own: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(view, { minLength: 1, maxLength: 5 }), fc.boolean(), (views, handOver) => {
        const fill = (array: Float32Array): Float32Array => array.map((_, i) => i);
        const pool = fill(new Float32Array(6000));
        const sharedPool = new Float32Array(new SharedArrayBuffer(24_000));
        sharedPool.set(pool);
        const expected: Record<string, Float32Array> = {};
        const tensors: Record<string, Tensor> = {};
        views.forEach(({ start, length, shared, own }, i) => {
          const part = (shared ? sharedPool : pool).subarray(start, start + length);
          const data = own ? new Float32Array(part) : part;
          tensors[`t${i}`] = new Tensor('float32', [length], data);
          expected[`t${i}`] = Float32Array.from(data);
        });
        const arrived = send(tensors, handOver);
        for (const [name, values] of Object.entries(expected)) {
          const data = arrived[name]?.data as Float32Array;
          expect(data).toEqual(values);
          expect(data.buffer).toBeInstanceOf(ArrayBuffer);
          if (!handOver) expect(tensors[name]?.data).toHaveLength(values.length);
        }
        expect(pool).toEqual(fill(new Float32Array(6000)));
        expect(Float32Array.from(sharedPool)).toEqual(pool);
      }),
      { numRuns: 50 },
    );
  });
});

function copyOf({ dtype, shape, data }: Tensor): Tensor {
  return new Tensor(dtype, shape, ArrayBuffer.isView(data) ? structuredClone(data) : [...data]);
}
