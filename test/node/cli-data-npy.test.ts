import fc from 'fast-check';
import { zipSync } from 'fflate';
import { describe, expect, it } from 'vitest';
import { parsePythonLiteral } from '../../src/cli/data/python-literal.ts';
import { openNpy } from '../../src/cli/data/npy.ts';
import { invalidData } from '../../src/cli/data/faults.ts';
import { encodeNpyHeader } from '../../src/cli/data/npy-header.ts';
import type { ByteSource } from '../../src/cli/data/byte-source.ts';
import { isInlayError } from '../../src/core/errors.ts';
import type { Tensor } from '../../src/core/tensor.ts';
import { bytesOf, codeOf, collect, dataFile, npy, npyOf, tensorsOf } from './cli-data-fixture.ts';

/** Three rows of two, as numpy saves `np.arange(6, dtype='<i2').reshape(3, 2)`. */
const golden = Buffer.from(
  '934e554d505901007600' +
    '7b276465736372273a20273c6932272c2027666f727472616e5f6f726465' +
    '72273a2046616c73652c20277368617065273a2028332c2032292c207d' +
    '2020202020202020202020202020202020202020202020202020202020' +
    '2020202020202020202020202020202020202020202020202020202020' +
    '0a000001000200030004000500',
  'hex',
);

/** An array in memory. */
function inMemory(bytes: Uint8Array): ByteSource {
  return {
    name: 'test.npy',
    sizeBytes: bytes.length,
    seekable: true,
    stream: async function* (start) {
      // Pieces of odd sizes cut through elements.
      for (let at = start; at < bytes.length; at += 7) yield bytes.subarray(at, at + 7);
    },
    read: async (start, length) => {
      if (start + length <= bytes.length) return bytes.subarray(start, start + length);
      throw invalidData('test.npy', 'it is cut short');
    },
  };
}

async function valuesOf(bytes: Uint8Array, from = 0): Promise<unknown[]> {
  const rows = await openNpy(inMemory(bytes));
  return (await collect(rows.read(from))).map((row) => row.toArray());
}

describe('a .npy file', () => {
  it('is read as numpy wrote it', async () => {
    expect(await valuesOf(golden)).toEqual([
      [0, 1],
      [2, 3],
      [4, 5],
    ]);
    const file = await dataFile('counts.npy', golden);
    expect(file.columns).toEqual(['counts']);
    const tensors = await tensorsOf(file, 'counts', 1);
    expect(tensors.map(({ dtype, shape, data }) => ({ dtype, shape, data }))).toEqual([
      { dtype: 'int16', shape: [2], data: Int16Array.of(2, 3) },
      { dtype: 'int16', shape: [2], data: Int16Array.of(4, 5) },
    ]);
  });

  it.each([1, 2, 3] as const)('is read in version %i of its format', async (version) => {
    const data = bytesOf(Float32Array.of(1.5, -2, 3, 4));
    expect(await valuesOf(npy({ descr: '<f4', shape: [2, 2], data, version }))).toEqual([
      [1.5, -2],
      [3, 4],
    ]);
  });

  it.each([
    ['f2', 'float16', Uint16Array.of(0x3c00, 0xc000)],
    ['f4', 'float32', Float32Array.of(0.1, -7e20)],
    ['f8', 'float64', Float64Array.of(0.1, Number.NEGATIVE_INFINITY)],
    ['i1', 'int8', Int8Array.of(-128, 127)],
    ['i2', 'int16', Int16Array.of(-32768, 258)],
    ['i4', 'int32', Int32Array.of(-(2 ** 31), 16_909_060)],
    ['i8', 'int64', BigInt64Array.of(-(2n ** 63n), 72_623_859_790_382_856n)],
    ['u1', 'uint8', Uint8Array.of(0, 255)],
    ['u2', 'uint16', Uint16Array.of(258, 65535)],
    ['u4', 'uint32', Uint32Array.of(16_909_060, 2 ** 32 - 1)],
    ['u8', 'uint64', BigUint64Array.of(2n ** 64n - 1n, 1n)],
    ['b1', 'bool', Uint8Array.of(1, 0)],
  ] as const)('may hold %s, in both byte orders', async (code, dtype, array) => {
    const little = bytesOf(array);
    const big = new Uint8Array(little);
    const unit = array.BYTES_PER_ELEMENT;
    for (let at = 0; at < big.length; at += unit) big.subarray(at, at + unit).reverse();
    const orders =
      unit === 1
        ? ([['|', little]] as const)
        : ([
            ['<', little],
            ['>', big],
          ] as const);
    for (const [order, data] of orders) {
      const rows = await openNpy(inMemory(npy({ descr: `${order}${code}`, shape: [2], data })));
      expect(rows).toMatchObject({ dtype, rows: 2, rowShape: [] });
      const read = await collect(rows.read(0));
      expect(read.map((row) => row.data)).toEqual([array.slice(0, 1), array.slice(1, 2)]);
    }
  });

  it('may hold text of fixed width', async () => {
    const ucs4 = Uint32Array.from([...'a\u{1f600}', ...'b'], (char) => char.codePointAt(0) as number);
    const padded = Uint32Array.of(...ucs4.slice(0, 2), 0, ucs4[2] as number, 0, 0);
    expect(await valuesOf(npy({ descr: '<U3', shape: [2], data: bytesOf(padded) }))).toEqual([
      'a\u{1f600}',
      'b',
    ]);
    const swapped = Buffer.from(bytesOf(padded.slice())).swap32();
    expect(await valuesOf(npy({ descr: '>U3', shape: [2], data: swapped }))).toEqual(['a\u{1f600}', 'b']);
    const bytes = Buffer.from('caf\u00e9\0b\0\0\0\0\0', 'utf8');
    expect(await valuesOf(npy({ descr: '|S6', shape: [1, 2], data: bytes.subarray(0, 12) }))).toEqual([
      ['caf\u00e9', 'b'],
    ]);
    expect(
      await codeOf(() => valuesOf(npy({ descr: '|S2', shape: [1], data: Uint8Array.of(0xc3, 0x28) }))),
    ).toBe('ERR_INLAY_FEED_VALUE');
  });

  it('gives the same rows in column order', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 2, maxLength: 4 }),
        fc.nat(4),
        async (shape, from) => {
          const size = shape.reduce((product, length) => product * length, 1);
          const rowOrder = Int32Array.from({ length: size }, (_, index) => index * 1_000_003);
          const columnOrder = Int32Array.from(rowOrder);
          for (let index = 0; index < size; index += 1) {
            let rest = index;
            let place = 0;
            let stride = 1;
            const position = shape.map(() => 0);
            for (let axis = shape.length - 1; axis >= 0; axis -= 1) {
              position[axis] = rest % (shape[axis] as number);
              rest = Math.floor(rest / (shape[axis] as number));
            }
            for (const [axis, length] of shape.entries()) {
              place += (position[axis] as number) * stride;
              stride *= length;
            }
            columnOrder[place] = rowOrder[index] as number;
          }
          const first = Math.min(from, shape[0] as number);
          const rows = await valuesOf(npy({ descr: '<i4', shape, data: bytesOf(rowOrder) }), first);
          const turned = npy({ descr: '<i4', shape, data: bytesOf(columnOrder), fortranOrder: true });
          expect(await valuesOf(turned, first)).toEqual(rows);
          const file = await dataFile('a.npz', zipSync({ 'x.npy': turned }));
          expect((await tensorsOf(file, 'x', first)).map((tensor) => tensor.toArray())).toEqual(rows);
        },
      ),
      { numRuns: 60 },
    );
  });

  it('turns long columns in pieces', async () => {
    const [rows, columns] = [5000, 3];
    const data = Float64Array.from({ length: rows * columns }, (_, index) => index);
    const file = await dataFile(
      'x.npy',
      npy({ descr: '<f8', shape: [rows, columns], data: bytesOf(data), fortranOrder: true }),
    );
    const tensors = await tensorsOf(file, 'x');
    expect(tensors).toHaveLength(rows);
    expect(tensors[4321]?.data).toEqual(Float64Array.of(4321, 9321, 14_321));
  });

  it.each([
    ['Python objects', '|O', 'ERR_INLAY_FEED_DTYPE'],
    ['complex numbers', '<c8', 'ERR_INLAY_FEED_DTYPE'],
    ['dates', '<M8[ns]', 'ERR_INLAY_FEED_DTYPE'],
    ['long doubles', '<f16', 'ERR_INLAY_FEED_DTYPE'],
    ['raw bytes', '|V4', 'ERR_INLAY_FEED_DTYPE'],
    ['no known byte order', '=f4', 'ERR_INLAY_FEED_DTYPE'],
    ['nothing that is a dtype', 'float', 'ERR_INLAY_FEED_DTYPE'],
  ])('is refused if it holds %s', async (_, descr, code) => {
    expect(await codeOf(() => valuesOf(npy({ descr, shape: [1], data: new Uint8Array(8) })))).toBe(code);
  });

  it.each([
    ['records', `{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}`, 'ERR_INLAY_FEED_DTYPE'],
    ['no shape', `{'descr': '<f4', 'fortran_order': False}`, 'ERR_INLAY_FEED_VALUE'],
    ['no axis', `{'descr': '<f4', 'fortran_order': False, 'shape': ()}`, 'ERR_INLAY_FEED_SHAPE'],
    ['a negative length', `{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}`, 'ERR_INLAY_FEED_SHAPE'],
    ['a length of text', `{'descr': '<f4', 'fortran_order': False, 'shape': ('1',)}`, 'ERR_INLAY_FEED_SHAPE'],
    [
      'more elements than there are',
      `{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}`,
      'ERR_INLAY_FEED_SHAPE',
    ],
    [
      'more than can be counted',
      `{'descr': '<f4', 'fortran_order': False, 'shape': (9007199254740991, 2)}`,
      'ERR_INLAY_FEED_SHAPE',
    ],
    [
      'endless empty rows',
      `{'descr': '<f4', 'fortran_order': False, 'shape': (9007199254740991, 0)}`,
      'ERR_INLAY_FEED_SHAPE',
    ],
    ['a program', `__import__('os').system('true')`, 'ERR_INLAY_FEED_VALUE'],
    [
      'a key twice',
      `{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,)}`,
      'ERR_INLAY_FEED_VALUE',
    ],
  ])('is refused if its header has %s', async (_, header, code) => {
    expect(await codeOf(() => valuesOf(npyOf(header, new Uint8Array(4))))).toBe(code);
  });

  it('is refused in bounded memory if its header claims to be huge', async () => {
    const bytes = Buffer.from(npyOf('{}', new Uint8Array(4), 2));
    bytes.writeUInt32LE(0xffffffff, 8);
    expect(await codeOf(() => valuesOf(bytes))).toBe('ERR_INLAY_FEED_VALUE');
  });

  it('is refused if it is cut short anywhere', async () => {
    for (let length = 0; length < golden.length; length += 1) {
      expect(await codeOf(() => valuesOf(golden.subarray(0, length)))).toMatch(
        /^ERR_INLAY_FEED_(VALUE|SHAPE)$/,
      );
    }
    expect(await codeOf(() => valuesOf(Buffer.concat([golden, Uint8Array.of(0)])))).toBe(
      'ERR_INLAY_FEED_SHAPE',
    );
  });

  it('gives three rows of two or a typed error, whichever byte is damaged', async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(golden.length - 1), fc.integer({ min: 1, max: 255 }), async (at, flip) => {
        const damaged = Uint8Array.from(golden);
        damaged[at] = (damaged[at] as number) ^ flip;
        try {
          const rows = await openNpy(inMemory(damaged));
          const read = await collect(rows.read(0));
          // `<i2` may turn into `<S2`: strings of two bytes, which tensors count as none.
          const lengthOf = (row: Tensor): number => (row.dtype === 'string' ? 2 * row.size : row.sizeBytes);
          expect(read.reduce((sum, row) => sum + lengthOf(row), 0)).toBe(12);
        } catch (error) {
          if (!isInlayError(error)) throw error;
        }
      }),
      { numRuns: 2000 },
    );
  });

  it('is refused if a bool is neither true nor false', async () => {
    const bytes = npy({ descr: '|b1', shape: [2], data: Uint8Array.of(1, 2) });
    expect(await codeOf(() => valuesOf(bytes))).toBe('ERR_INLAY_FEED_VALUE');
  });
});

describe('a header that is written', () => {
  it('reads back, and lets the data begin at a multiple of 64', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 6 }),
        async (shape) => {
          const size = shape.reduce((product, length) => product * length, 1);
          const header = encodeNpyHeader('<f4', shape);
          expect(header.length % 64).toBe(0);
          const rows = await openNpy(inMemory(Buffer.concat([header, new Uint8Array(4 * size)])));
          expect([rows.rows, ...rows.rowShape]).toEqual(shape);
        },
      ),
    );
  });
});

describe('parsePythonLiteral', () => {
  it('reads what headers are made of', () => {
    expect(parsePythonLiteral(`{'a': (1, 2L,), "b": [], 'c': True, }`)).toEqual(
      new Map<string, unknown>([
        ['a', [1, 2]],
        ['b', []],
        ['c', true],
      ]),
    );
  });

  it.each(['', '{', '(1', '(1 2)', '{1: 2}', "{'a' 1}", "{'a':}", 'None', '1 1', '('.repeat(9999), '(,)'])(
    'gives nothing for %j',
    (text) => {
      expect(parsePythonLiteral(text)).toBeUndefined();
    },
  );

  it('never throws', () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom(...'{}()[],:\'" 0aTrueFalse\\') }), (text) => {
        parsePythonLiteral(text);
      }),
    );
  });
});
