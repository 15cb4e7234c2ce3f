import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createKeys } from '../../src/react/key.ts';

describe('the key of a value', () => {
  const keyOf = createKeys();

  it('is that of its copy', () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        expect(keyOf(structuredClone(value))).toBe(keyOf(value));
      }),
    );
  });

  it('differs for values that differ as JSON', () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.jsonValue(), (one, other) => {
        fc.pre(JSON.stringify(one) !== JSON.stringify(other));
        // The order of properties is no difference.
        if (keyOf(one) === keyOf(other)) expect(one).toEqual(other);
      }),
    );
  });

  it('does not depend on the order of properties, nor on those that are undefined', () => {
    expect(keyOf({ a: 1, b: [2, { c: 3n }] })).toBe(keyOf({ b: [2, { c: 3n }], d: undefined, a: 1 }));
  });

  it('is that of the address for a URL', () => {
    expect(keyOf(new URL('https://a.test/m.onnx'))).toBe(keyOf('https://a.test/m.onnx'));
  });

  it('stands for the very object where contents cannot be told', () => {
    const bytes = new Uint8Array(4);
    const listen = (): void => {};
    expect(keyOf(bytes)).toBe(keyOf(bytes));
    expect(keyOf(listen)).toBe(keyOf(listen));
    expect(
      new Set([bytes, new Uint8Array(4), new ArrayBuffer(4), listen, () => {}, 1, '1', null].map(keyOf)).size,
    ).toBe(8);
  });
});
