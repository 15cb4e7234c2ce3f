import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { bindColumns } from '../../src/cli/data/columns.ts';
import { splitLines } from '../../src/cli/data/jsonl.ts';
import { parseNumber, toJson } from '../../src/cli/data/numbers.ts';
import type { DataFile, JsonValue } from '../../src/cli/data/rows.ts';
import {
  DTYPES,
  storageLength,
  type DType,
  type DTypeStorage,
  type TypedArray,
} from '../../src/core/dtype.ts';
import { isInlayError } from '../../src/core/errors.ts';
import { Tensor } from '../../src/core/tensor.ts';
import { codeOf, collect, dataFile, fileWith } from './cli-data-fixture.ts';

async function linesOf(pieces: readonly string[], cap = 1000): Promise<(string | undefined)[]> {
  async function* stream(): AsyncIterable<Uint8Array> {
    for (const piece of pieces) yield Buffer.from(piece);
  }
  return (await collect(splitLines(stream(), cap))).map(
    ({ bytes }) => bytes && Buffer.from(bytes).toString(),
  );
}

/** Rows as plain values, `!` and a code for bad ones. */
async function rowsOf(file: DataFile, columns: readonly string[], from = 0): Promise<unknown[]> {
  return (await collect(file.rows(columns, from))).map(({ index, cells, error }) => {
    if (error !== undefined) return `${index} ! ${isInlayError(error) ? error.code : error.name}`;
    const values = Object.entries(cells).map(([column, cell]) => {
      if (cell.kind === 'tensor') return [column, cell.tensor];
      return [column, cell.kind === 'json' ? cell.value : cell.text];
    });
    return [index, Object.fromEntries(values)];
  });
}

describe('splitLines', () => {
  it('finds the same lines however the stream is cut', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.string({ unit: fc.constantFrom('a', 'b', '\n') })), async (pieces) => {
        const expected = pieces.join('').split('\n');
        if (expected.at(-1) === '') expected.pop();
        expect(await linesOf(pieces)).toEqual(expected);
      }),
    );
  });

  it('drops lines above the cap, and finds the next one', async () => {
    expect(await linesOf(['aa', 'aa\nbbb', '\ncccc'], 3)).toEqual([undefined, 'bbb', undefined]);
  });
});

describe('a .jsonl file', () => {
  it('has a row per line, with the entries that are asked for', async () => {
    const file = await dataFile('a.jsonl', '\ufeff{"x": [1, 2], "id": 7}\r\n\n{"x": [3, 4]}\n  \n{"y": 1}');
    expect(file.columns).toBeUndefined();
    expect(await rowsOf(file, ['x'])).toEqual([
      [0, { x: [1, 2] }],
      [1, { x: [3, 4] }],
      [2, {}],
    ]);
    expect(await rowsOf(file, ['x'], 1)).toEqual([
      [1, { x: [3, 4] }],
      [2, {}],
    ]);
    expect(file.extent).toMatchObject({ unit: 'bytes', total: 53 });
    expect(file.extent.position()).toBe(53);
  });

  it('may have values alone where one column is read', async () => {
    const file = await dataFile('a.jsonl', '[1, 2]\n3\n"four"\n');
    expect(await rowsOf(file, ['x'])).toEqual([
      [0, { x: [1, 2] }],
      [1, { x: 3 }],
      [2, { x: 'four' }],
    ]);
    expect(await rowsOf(file, ['x', 'y'])).toEqual(
      [0, 1, 2].map((index) => `${index} ! ERR_INLAY_FEED_VALUE`),
    );
  });

  it('tells bad rows from good ones, without quoting them', async () => {
    const bytes = Buffer.concat([
      Buffer.from('{"x": 1}\n{"secret\n'),
      Uint8Array.of(0x22, 0xff, 0x22, 0x0a),
      Buffer.from('2'),
    ]);
    const file = await dataFile('a.jsonl', bytes);
    const rows = await collect(file.rows(['x'], 0));
    expect(rows.map(({ place, error }) => [place, error?.message])).toEqual([
      ['line 1', undefined],
      ['line 2', 'Line 2 of a.jsonl cannot be read: it is no JSON.'],
      ['line 3', 'Line 3 of a.jsonl cannot be read: it is not UTF-8.'],
      ['line 4', undefined],
    ]);
  });

  it('has no columns by the names of what objects inherit', async () => {
    const file = await dataFile('a.jsonl', '{"x": 1}\n');
    expect(await rowsOf(file, ['toString'])).toEqual([[0, {}]]);
  });
});

describe('a .csv file', () => {
  const table = 'name, x1,x2,"a ""b"""\r\nann,1,2.5,"p\nq"\r\n\r\nbob,-3,nan,r\r\n';

  it('has the columns of its first line', async () => {
    const file = await dataFile('a.csv', table);
    expect(file.columns).toEqual(['name', 'x1', 'x2', 'a "b"']);
    expect(file.together).toEqual(['x1', 'x2']);
    expect(await rowsOf(file, ['a "b"', 'x1'])).toEqual([
      [0, { 'a "b"': 'p\nq', x1: '1' }],
      [1, { 'a "b"': 'r', x1: '-3' }],
    ]);
    expect(await rowsOf(file, ['name'], 1)).toEqual([[1, { name: 'bob' }]]);
  });

  it('tells rows of another length from good ones', async () => {
    const file = await dataFile('a.csv', 'x,y\n1,2\n3\n4,5,6\n7,8\n');
    expect(await rowsOf(file, ['y'])).toEqual([
      [0, { y: '2' }],
      '1 ! ERR_INLAY_FEED_VALUE',
      '2 ! ERR_INLAY_FEED_VALUE',
      [3, { y: '8' }],
    ]);
  });

  it('is refused if it is empty, names a column twice, has an open quote or is not UTF-8', async () => {
    expect(await codeOf(() => dataFile('a.csv', ''))).toBe('ERR_INLAY_FEED_VALUE');
    expect(await codeOf(() => dataFile('a.csv', 'x,x\n1,2\n'))).toBe('ERR_INLAY_FEED_VALUE');
    const error: unknown = await dataFile('a.csv', 'x,y\n1,2\n3,"secret').catch((reason: unknown) => reason);
    expect(isInlayError(error) && error.code).toBe('ERR_INLAY_FEED_VALUE');
    expect(String(error)).toContain('CSV_QUOTE_NOT_CLOSED');
    expect(String(error)).not.toContain('secret');
    const bytes = Buffer.concat([Buffer.from('x\n1\n'), Uint8Array.of(0xff, 0x0a)]);
    expect(await codeOf(() => dataFile('a.csv', bytes))).toBe('ERR_INLAY_FEED_VALUE');
  });

  it('gives rows or a typed error for any bytes', async () => {
    const bytes = fc.string({
      unit: fc.constantFrom('a', '1', ',', '"', '\n', '\r', ' ', '\u00e9'),
      maxLength: 40,
    });
    await fc.assert(
      fc.asyncProperty(bytes, async (text) => {
        try {
          const file = await dataFile('a.csv', text);
          await collect(file.rows(file.columns ?? [], 0));
        } catch (error) {
          if (!isInlayError(error)) throw error;
        }
      }),
      { numRuns: 300 },
    );
  });
});

describe('numbers', () => {
  it.each([
    ['1', 1],
    [' +2.50 ', 2.5],
    ['-.5e3', -500],
    ['9007199254740993', 9_007_199_254_740_993n],
    ['-9223372036854775808', -(2n ** 63n)],
    ['NaN', Number.NaN],
    ['-Infinity', Number.NEGATIVE_INFINITY],
    ['inf', Number.POSITIVE_INFINITY],
    ['', undefined],
    ['0x10', undefined],
    ['1,5', undefined],
    ['1 2', undefined],
    ['true', undefined],
  ])('reads %j as %s', (text, value) => {
    expect(parseNumber(text)).toEqual(value);
  });

  it('writes each dtype as JSON of the same shape', () => {
    expect(
      toJson(new Tensor('float32', [2, 2], Float32Array.of(0.1, -0, Number.NaN, Number.NEGATIVE_INFINITY))),
    ).toBe('[[0.1,-0],["NaN","-Infinity"]]');
    expect(toJson(new Tensor('int64', [3], BigInt64Array.of(2n ** 53n - 1n, 2n ** 53n, -(2n ** 53n))))).toBe(
      '[9007199254740991,"9007199254740992","-9007199254740992"]',
    );
    expect(toJson(new Tensor('bool', [], Uint8Array.of(1)))).toBe('true');
    expect(toJson(new Tensor('string', [1], ['a"\n']))).toBe('["a\\"\\n"]');
    expect(toJson(new Tensor('float32', [0, 2], new Float32Array()))).toBe('[]');
    expect(toJson(new Tensor('float32', [2, 0], new Float32Array()))).toBe('[[],[]]');
  });

  it('come back from JSON to the last bit, whatever the dtype', () => {
    const dtypes = Object.keys(DTYPES).filter((name): name is DType => {
      const { kind, bits } = DTYPES[name as DType];
      return kind !== 'complex' && kind !== 'string' && !(kind === 'float' && bits < 16);
    });
    const cases = fc.constantFrom(...dtypes).chain((dtype) => {
      const { kind, storage } = DTYPES[dtype];
      const size = 4;
      const Storage = storage as new (buffer: ArrayBuffer) => TypedArray;
      const bits = fc
        .uint8Array({ minLength: 32, maxLength: 32 })
        .map(
          (bytes) =>
            new Storage(new Uint8Array(kind === 'bool' ? bytes.map((byte) => byte & 1) : bytes).buffer),
        );
      return bits.map((data) => {
        const elements = data.slice(0, storageLength(dtype, size)) as DTypeStorage[DType];
        return new Tensor(dtype, [1, 2, 2], elements);
      });
    });
    fc.assert(
      fc.property(cases, (tensor) => {
        const json = toJson(tensor);
        const spec = { name: 'x', dtype: tensor.dtype, shape: [1, 2, 2] };
        const file = fileWith(['x']);
        const { toFeeds } = bindColumns({ inputs: [spec], outputs: [] }, file, []);
        const { feeds } = toFeeds({ x: { kind: 'json', value: JSON.parse(json) as JsonValue } });
        const back = feeds['x'] as Tensor;
        expect(toJson(back)).toBe(json);
        // Not-a-numbers have many bit patterns and one name.
        if (!json.includes('NaN')) expect(back.data).toEqual(tensor.data);
      }),
      { numRuns: 2000 },
    );
  });
});
