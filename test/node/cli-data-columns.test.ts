import { describe, expect, it } from 'vitest';
import { joinFeeds, splitOutputs, assertJoinable } from '../../src/cli/data/batch-rows.ts';
import { bindColumns, type Mapping } from '../../src/cli/data/columns.ts';
import type { Cell, DataFile, JsonValue } from '../../src/cli/data/rows.ts';
import type { DType } from '../../src/core/dtype.ts';
import type { Dimension, TensorSpec } from '../../src/core/signature.ts';
import { Tensor } from '../../src/core/tensor.ts';
import { codeOf, fileWith } from './cli-data-fixture.ts';

const image: TensorSpec = { name: 'image', dtype: 'float32', shape: ['batch', 1, 2, 2] };

function columnsOf(
  inputs: readonly TensorSpec[],
  file: DataFile,
  ...maps: readonly string[]
): { columns: readonly string[]; ignored: readonly string[] } {
  const { columns, ignored } = bindColumns({ inputs, outputs: [] }, file, maps.map(toMapping));
  return { columns, ignored };
}

function toMapping(text: string): Mapping {
  const [pattern = '', input = ''] = text.split('=');
  return { pattern, input };
}

/** What one cell becomes for an input: dtype, shape, data, or a code. */
function feedOf(dtype: DType, shape: readonly Dimension[] | null, ...cells: readonly Cell[]): unknown {
  const columns = cells.map((_, index) => `c${index}`);
  const { toFeeds } = bindColumns(
    { inputs: [{ name: 'x', dtype, shape }], outputs: [] },
    fileWith(columns, columns),
    [],
  );
  const { feeds, hasBatchAxis } = toFeeds(
    Object.fromEntries(cells.map((cell, index) => [`c${index}`, cell])),
  );
  const feed = feeds['x'];
  return feed instanceof Tensor ? [feed.shape, [...(feed.data as Iterable<unknown>)], hasBatchAxis] : feed;
}

const json = (value: JsonValue): Cell => ({ kind: 'json', value });
const text = (value: string): Cell => ({ kind: 'text', text: value });
const slice = (tensor: Tensor): Cell => ({ kind: 'tensor', tensor });

describe('columns', () => {
  it('go to inputs of the same name', () => {
    const inputs = [image, { ...image, name: 'mask' }];
    expect(columnsOf(inputs, fileWith(['id', 'mask', 'image']))).toEqual({
      columns: ['image', 'mask'],
      ignored: ['id'],
    });
    expect(columnsOf(inputs, fileWith(undefined))).toEqual({ columns: ['image', 'mask'], ignored: [] });
  });

  it('go together to the only input, if none has its name', () => {
    const file = fileWith(['label', 'a', 'b'], ['a', 'b']);
    expect(columnsOf([image], file)).toEqual({ columns: ['a', 'b'], ignored: ['label'] });
  });

  it('go where --map says', () => {
    const file = fileWith(['image', 'p1', 'p2', 'q2', 'p10x'], ['p1']);
    expect(columnsOf([image], file, 'q2=image').columns).toEqual(['q2']);
    expect(columnsOf([image], file, 'p*=image').columns).toEqual(['p1', 'p2', 'p10x']);
    expect(columnsOf([image], file, '*2=image', 'p1=image').columns).toEqual(['p2', 'q2', 'p1']);
    expect(columnsOf([image], file, 'p*0*=image').columns).toEqual(['p10x']);
    const odd = fileWith(['a.b', 'axb', 'p[0]', 'p[1]']);
    expect(columnsOf([image], odd, 'a.b=image').columns).toEqual(['a.b']);
    expect(columnsOf([image], odd, 'p[*]=image').columns).toEqual(['p[0]', 'p[1]']);
  });

  it('have to be there, and so do inputs', async () => {
    const bind = (file: DataFile, ...maps: string[]) => codeOf(async () => columnsOf([image], file, ...maps));
    expect(await bind(fileWith(['a']), 'b=image')).toBe('ERR_INLAY_FEED_MISSING');
    expect(await bind(fileWith(['p1']), 'p1*1=image')).toBe('ERR_INLAY_FEED_MISSING');
    expect(await bind(fileWith(['a']), 'a=images')).toBe('ERR_INLAY_FEED_UNKNOWN');
    expect(await bind(fileWith(['a']))).toBe('ERR_INLAY_FEED_MISSING');
    const { toFeeds } = bindColumns({ inputs: [image], outputs: [] }, fileWith(undefined), []);
    expect(await codeOf(async () => toFeeds({}))).toBe('ERR_INLAY_FEED_MISSING');
  });
});

describe('a cell', () => {
  const free = ['batch', 1, 2, 2];
  const whole = [[1, 1, 2, 2], [1, 2, 3, 4], true];

  it('becomes a sample, with or without a batch axis, flat or nested', () => {
    expect(
      feedOf(
        'float32',
        free,
        json([
          [
            [1, 2],
            [3, 4],
          ],
        ]),
      ),
    ).toEqual(whole);
    expect(
      feedOf(
        'float32',
        free,
        json([
          [1, 2],
          [3, 4],
        ]),
      ),
    ).toEqual(whole);
    expect(feedOf('float32', free, json([1, 2, 3, 4]))).toEqual(whole);
    expect(
      feedOf(
        'float32',
        free,
        json([
          [
            [
              [1, 2],
              [3, 4],
            ],
          ],
        ]),
      ),
    ).toEqual([...whole.slice(0, 2), false]);
    expect(feedOf('float32', free, text('[1, 2, 3, 4]'))).toEqual(whole);
    expect(feedOf('float32', free, ...['1', '2', '3', '4'].map(text))).toEqual(whole);
    expect(
      feedOf('float32', free, slice(new Tensor('float32', [2, 2], Float32Array.of(1, 2, 3, 4)))),
    ).toEqual(whole);
  });

  it('of a whole shape stays as it is, and so does one of a rank that is not known', () => {
    expect(feedOf('float32', [], json(3))).toEqual([[], [3], false]);
    expect(feedOf('float32', [2], json([1, 2]))).toEqual([[2], [1, 2], false]);
    expect(feedOf('float32', ['n'], json(1))).toEqual([[1], [1], true]);
    expect(feedOf('float32', null, json([1, 2]))).toEqual([[1, 2], [1, 2], true]);
    expect(feedOf('float32', [2, 2], json([1, 2, 3, 4]))).toEqual(Float32Array.of(1, 2, 3, 4));
  });

  it('never passes for two samples', async () => {
    const cell = json([1, 2, 3, 4, 5, 6, 7, 8]);
    expect(await codeOf(async () => feedOf('float32', free, cell))).toBe('ERR_INLAY_FEED_SHAPE');
  });

  it('is read by the dtype of its input', () => {
    expect(feedOf('int64', ['n', 3], json([1, '9223372036854775807', -5]))).toEqual([
      [1, 3],
      [1n, 2n ** 63n - 1n, -5n],
      true,
    ]);
    expect(feedOf('float32', ['n', 3], json(['NaN', '-Infinity', 1]))).toEqual([
      [1, 3],
      [Number.NaN, Number.NEGATIVE_INFINITY, 1],
      true,
    ]);
    expect(feedOf('bool', ['n', 4], text('true'), text('FALSE'), text('1'), text('0'))).toEqual([
      [1, 4],
      [1, 0, 1, 0],
      true,
    ]);
    expect(feedOf('bool', ['n', 2], json([true, 0]))).toEqual([[1, 2], [1, 0], true]);
    expect(feedOf('string', ['n', 2], text('1'), text('[x]'))).toEqual([[1, 2], ['1', '[x]'], true]);
    expect(feedOf('float16', ['n', 1], text('1.5'))).toEqual([[1, 1], [0x3e00], true]);
  });

  it('of an array is converted where each element has a value', async () => {
    const of = (dtype: DType, tensor: Tensor): unknown => feedOf(dtype, ['n', 2], slice(tensor));
    const pair = [1, 2];
    expect(of('float32', new Tensor('float64', [2], Float64Array.from(pair)))).toEqual([[1, 2], pair, true]);
    expect(of('float32', new Tensor('uint8', [2], Uint8Array.from(pair)))).toEqual([[1, 2], pair, true]);
    expect(of('float32', new Tensor('int64', [2], BigInt64Array.of(1n, 2n)))).toEqual([[1, 2], pair, true]);
    expect(of('float32', new Tensor('float16', [2], Uint16Array.of(0x3c00, 0x4000)))).toEqual([
      [1, 2],
      pair,
      true,
    ]);
    expect(of('int64', new Tensor('int32', [2], Int32Array.from(pair)))).toEqual([[1, 2], [1n, 2n], true]);
    expect(of('int32', new Tensor('float64', [2], Float64Array.from(pair)))).toEqual([[1, 2], pair, true]);
    expect(of('uint8', new Tensor('bool', [2], Uint8Array.of(1, 0)))).toEqual([[1, 2], [1, 0], true]);
    const refused = [
      ['uint8', new Tensor('int32', [2], Int32Array.of(-1, 2)), 'ERR_INLAY_FEED_VALUE'],
      ['int32', new Tensor('float64', [2], Float64Array.of(0.5, 2)), 'ERR_INLAY_FEED_VALUE'],
      ['bool', new Tensor('uint8', [2], Uint8Array.of(2, 0)), 'ERR_INLAY_FEED_VALUE'],
      ['float32', new Tensor('string', [2], ['1', '2']), 'ERR_INLAY_FEED_DTYPE'],
    ] as const;
    for (const [dtype, tensor, code] of refused)
      expect(await codeOf(async () => of(dtype, tensor))).toBe(code);
  });

  it.each([
    ['nothing', json(null)],
    ['an object', json({ a: 1 })],
    ['text', json('one')],
    ['an empty field', text('')],
    ['a broken list', text('[1, ')],
    ['a ragged list', json([[1], [1, 2]])],
  ])('is refused if it is %s', async (_, cell) => {
    expect(await codeOf(async () => feedOf('float32', ['n', 1], cell))).toMatch(
      /^ERR_INLAY_FEED_(VALUE|SHAPE)$/,
    );
  });

  it('is refused with the name of its input, and without its value', () => {
    expect(() => feedOf('float32', ['n', 1], text('secret'))).toThrow(
      'Input x: float32 [n, 1]: Element 0 is not a number, as float32 needs.',
    );
  });
});

describe('samples of one run', () => {
  const sample = (...values: readonly number[]): Readonly<Record<string, Tensor>> => ({
    x: new Tensor('float32', [1, values.length], Float32Array.from(values)),
    id: new Tensor('int64', [1], BigInt64Array.of(BigInt(values.length))),
  });

  it('are joined, and what comes of them is taken apart', () => {
    const joined = joinFeeds([sample(1, 2), sample(3, 4), sample(5, 6)]) as Readonly<Record<string, Tensor>>;
    expect(joined['x']).toMatchObject({ shape: [3, 2], data: Float32Array.of(1, 2, 3, 4, 5, 6) });
    expect(joined['id']).toMatchObject({ shape: [3], data: BigInt64Array.of(2n, 2n, 2n) });
    expect(splitOutputs(joined, 3)).toEqual([sample(1, 2), sample(3, 4), sample(5, 6)]);
  });

  it('stay apart if they differ in shape, and if outputs do not count them', () => {
    expect(joinFeeds([sample(1, 2), sample(3)])).toBeUndefined();
    expect(splitOutputs(sample(1, 2), 2)).toBeUndefined();
  });

  it('need a model with a free first axis', async () => {
    const fixed = { ...image, shape: [1, 1, 2, 2] };
    expect(() =>
      assertJoinable({ inputs: [image], outputs: [{ ...image, shape: [null, 3] }] }),
    ).not.toThrow();
    for (const spec of [
      fixed,
      { ...image, shape: null },
      { ...image, shape: [] },
      { ...image, dtype: 'string' as const },
    ]) {
      expect(await codeOf(async () => assertJoinable({ inputs: [image], outputs: [spec] }))).toBe(
        'ERR_INLAY_FEED_SHAPE',
      );
    }
  });
});
