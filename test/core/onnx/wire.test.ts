import { describe, expect, it } from 'vitest';
import fc from 'fast-check';
import { ModelError } from '../../../src/core/errors.ts';
import {
  createCursor,
  createSink,
  readBytes,
  readInt32,
  readInt64,
  readLength,
  readSafeInt,
  readTag,
  readUint64,
  readVarint,
  skipField,
  varintSize,
  writeVarint,
} from '../../../src/onnx/wire.ts';

const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values);

function failureOf(read: () => unknown): { code: string; offset: unknown } {
  try {
    read();
  } catch (error) {
    if (error instanceof ModelError) return { code: error.code, offset: error.details['offset'] };
    throw error;
  }
  throw new Error('Nothing was thrown.');
}

const TRUNCATED = 'ERR_INLAY_MODEL_TRUNCATED';
const INVALID = 'ERR_INLAY_MODEL_INVALID';

function written(value: number | bigint): Uint8Array {
  const sink = createSink(varintSize(value));
  writeVarint(sink, value);
  expect(sink.at).toBe(sink.bytes.length);
  return sink.bytes;
}

describe('varints', () => {
  it('are written as the protobuf documentation shows', () => {
    expect(written(150)).toEqual(bytes(0x96, 0x01));
    expect(written(-2)).toEqual(bytes(0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01));
  });

  it('keep every signed 64-bit integer', () => {
    fc.assert(
      fc.property(fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n), (value) => {
        expect(readInt64(createCursor(written(value)))).toBe(value);
      }),
    );
  });

  it('keep every unsigned 64-bit integer', () => {
    fc.assert(
      fc.property(fc.bigInt(0n, 2n ** 64n - 1n), (value) => {
        expect(readUint64(createCursor(written(value)))).toBe(value);
      }),
    );
  });

  it('keep every safe integer and every int32 as a number', () => {
    fc.assert(
      fc.property(fc.maxSafeInteger(), fc.integer(), (safe, int32) => {
        expect(readSafeInt(createCursor(written(safe)))).toBe(safe);
        expect(written(safe)).toEqual(written(BigInt(safe)));
        expect(readInt32(createCursor(written(int32)))).toBe(int32);
      }),
    );
  });

  it('longer than 10 bytes are refused', () => {
    const long = new Uint8Array(11).fill(0x80);
    expect(failureOf(() => readVarint(createCursor(long)))).toEqual({ code: INVALID, offset: 0 });
    long[9] = 0x01;
    expect(readUint64(createCursor(long))).toBe(2n ** 63n);
  });

  it('that end early are truncated, and name the byte where they start', () => {
    const cursor = createCursor(bytes(0x01, 0x80, 0x80));
    readVarint(cursor);
    expect(failureOf(() => readVarint(cursor))).toEqual({ code: TRUNCATED, offset: 1 });
  });

  it('that leave their message are malformed', () => {
    const cursor = createCursor(bytes(0x80, 0x01));
    cursor.end = 1;
    expect(failureOf(() => readVarint(cursor))).toEqual({ code: INVALID, offset: 0 });
  });

  it('beyond 2^53 are refused where a number must be exact', () => {
    const cursor = createCursor(written(2n ** 53n));
    expect(failureOf(() => readSafeInt(cursor))).toEqual({ code: INVALID, offset: 0 });
  });

  it.each([1.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53, 2n ** 64n, -(2n ** 63n) - 1n])(
    'refuse to be written from %s',
    (value) => {
      expect(() => varintSize(value)).toThrow(RangeError);
    },
  );
});

describe('lengths', () => {
  it('beyond the bytes are refused, whatever they announce', () => {
    for (const length of [2, 2 ** 31, 2 ** 52, 2n ** 64n - 1n]) {
      const prefix = written(length);
      const cursor = createCursor(bytes(...prefix, 0));
      expect(failureOf(() => readLength(cursor))).toEqual({ code: TRUNCATED, offset: 0 });
    }
  });

  it('give views, not copies', () => {
    const whole = bytes(0x02, 7, 8, 9);
    const view = readBytes(createCursor(whole));
    expect(view).toEqual(bytes(7, 8));
    expect(view.buffer).toBe(whole.buffer);
  });
});

describe('tags', () => {
  it('need a field number between 1 and 2^29 - 1', () => {
    expect(readTag(createCursor(bytes(0x08)))).toBe(8);
    expect(failureOf(() => readTag(createCursor(bytes(0x02)))).code).toBe(INVALID);
    expect(failureOf(() => readTag(createCursor(written(2 ** 32)))).code).toBe(INVALID);
  });
});

describe('skipping', () => {
  const skipped = (...values: number[]): number => {
    const cursor = createCursor(bytes(...values));
    skipField(cursor, readTag(cursor));
    return cursor.at;
  };

  it('passes over every wire type', () => {
    expect(skipped(0x08, 0x96, 0x01, 0xff)).toBe(3);
    expect(skipped(0x09, 1, 2, 3, 4, 5, 6, 7, 8, 0xff)).toBe(9);
    expect(skipped(0x0a, 2, 1, 2, 0xff)).toBe(4);
    expect(skipped(0x0d, 1, 2, 3, 4, 0xff)).toBe(5);
    // A group with a varint and an inner group.
    expect(skipped(0x0b, 0x10, 1, 0x13, 0x14, 0x0c, 0xff)).toBe(6);
  });

  it('refuses groups that never start, end as another, or stay open', () => {
    expect(failureOf(() => skipped(0x0c)).code).toBe(INVALID);
    expect(failureOf(() => skipped(0x0b, 0x14)).code).toBe(INVALID);
    expect(failureOf(() => skipped(0x0b, 0x10, 1)).code).toBe(TRUNCATED);
    expect(failureOf(() => skipped(0x0e)).code).toBe(INVALID);
  });

  it('refuses groups that nest too deep', () => {
    expect(failureOf(() => skipped(...Array.from({ length: 200 }, () => 0x0b))).code).toBe(INVALID);
  });
});
