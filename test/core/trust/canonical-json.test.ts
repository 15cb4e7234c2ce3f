import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { fromUtf8, toUtf8 } from '../../../src/core/bytes.ts';
import { TrustError } from '../../../src/core/errors.ts';
import { canonicalJson, parseStrictJson } from '../../../src/trust/canonical-json.ts';

const canonical = (value: unknown): string => fromUtf8(canonicalJson(value));
const parse = (text: string): unknown => parseStrictJson(toUtf8(text));

const { value: jsonValue } = fc.letrec((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    fc.constant(null),
    fc.boolean(),
    fc.maxSafeInteger().map((n) => (n === 0 ? 0 : n)),
    fc.string({ unit: 'binary' }),
    fc.array(tie('value'), { maxLength: 4 }),
    fc.dictionary(fc.string({ unit: 'binary' }), tie('value'), { maxKeys: 4 }),
  ),
}));

/** JSON readers refuse bare control characters, and OLPC canonical JSON has them. */
const escapeControls = (text: string): string =>
  // oxlint-disable-next-line no-control-regex -- control characters are the subject
  text.replace(/[\0-\x1f]/g, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`);

describe('canonicalJson', () => {
  it('has no white space, sorts keys and escapes only backslash and quote', () => {
    expect(canonical({ b: [1, -2, true, null], a: 'x"\\\n/é' })).toBe(
      '{"a":"x\\"\\\\\n/é","b":[1,-2,true,null]}',
    );
  });

  it('sorts keys by code point, not by UTF-16 unit', () => {
    expect(canonical({ '\u{1F600}': 1, '\uFF5E': 2, a: 3 })).toBe('{"a":3,"\uFF5E":2,"\u{1F600}":1}');
  });

  it('sorts a prefix before what it begins', () => {
    expect(canonical({ ab: 1, a: 2, '': 3 })).toBe('{"":3,"a":2,"ab":1}');
  });

  it('takes a key named __proto__ as any other', () => {
    expect(canonical(parse('{"__proto__":{"a":1}}'))).toBe('{"__proto__":{"a":1}}');
  });

  it.each([
    [1.5],
    [Number.NaN],
    [Number.POSITIVE_INFINITY],
    [2 ** 53],
    [undefined],
    [1n],
    [() => 1],
    ['\ud800'],
  ])('refuses %s', (value) => {
    expect(() => canonicalJson(value)).toThrow(TypeError);
    expect(() => canonicalJson({ nested: [value] })).toThrow(TypeError);
  });

  it('does not depend on the order in which keys were added', () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string({ unit: 'binary' }), fc.integer()), (object) => {
        const reversed = Object.fromEntries(Object.entries(object).reverse());
        expect(canonical(reversed)).toBe(canonical(object));
      }),
    );
  });

  it('means the same as what it was made of, and is its own canonical form', () => {
    fc.assert(
      fc.property(jsonValue, (value) => {
        const text = canonical(value);
        const back = parse(escapeControls(text));
        expect(back).toEqual(value);
        expect(canonical(back)).toBe(text);
      }),
    );
  });

  it('gives different values different texts', () => {
    fc.assert(
      fc.property(jsonValue, jsonValue, (a, b) => {
        fc.pre(JSON.stringify(a) !== JSON.stringify(b));
        const same = canonical(a) === canonical(b);
        // Only the order of keys may differ.
        if (same) expect(a).toEqual(b);
      }),
    );
  });
});

describe('parseStrictJson', () => {
  it('reads what JSON.parse reads when there are only safe integers', () => {
    fc.assert(
      fc.property(jsonValue, fc.constantFrom(0, 1, 2), (value, indent) => {
        const text = JSON.stringify(value, null, indent);
        expect(parse(text)).toEqual(JSON.parse(text));
      }),
    );
  });

  it.each([
    ['duplicate key', '{"a":1,"a":2}'],
    ['duplicate key in another spelling', '{"a":1,"\\u0061":2}'],
    ['duplicate __proto__', '{"__proto__":1,"__proto__":2}'],
    ['fraction', '1.5'],
    ['integer written as fraction', '1.0'],
    ['exponent', '1e3'],
    ['unsafe integer', '9007199254740992'],
    ['very long integer', '1'.repeat(400)],
    ['leading zero', '01'],
    ['negative zero', '-0'],
    ['plus sign', '+1'],
    ['nothing', ''],
    ['byte order mark', '\uFEFF{}'],
    ['trailing comma in an object', '{"a":1,}'],
    ['trailing comma in a list', '[1,]'],
    ['comment', '{}//'],
    ['second value', '{} {}'],
    ['bare word', 'undefined'],
    ['single quotes', "{'a':1}"],
    ['control character in a string', '"\n"'],
    ['unknown escape', '"\\x41"'],
    ['unfinished string', '"abc'],
    ['unfinished escape', '"abc\\'],
    ['lone surrogate', '"\\ud800"'],
    ['lone surrogate as key', '{"\\udc00":1}'],
    ['33 levels', '['.repeat(33) + ']'.repeat(33)],
    ['very many levels', '['.repeat(1_000_000)],
  ])('refuses a %s', (_, text) => {
    expect(() => parse(text)).toThrow(expect.objectContaining({ code: 'ERR_INLAY_METADATA_INVALID' }));
  });

  it('accepts 32 levels', () => {
    expect(parse('['.repeat(32) + ']'.repeat(32))).toHaveLength(1);
  });

  it('refuses bytes that are not UTF-8', () => {
    expect(() => parseStrictJson(Uint8Array.of(0x22, 0xc3, 0x28, 0x22))).toThrow(TrustError);
  });

  it('does not let a key reach a prototype', () => {
    const value = parse('{"__proto__":{"polluted":1},"constructor":2}') as Record<string, unknown>;
    expect(Object.keys(value)).toEqual(['__proto__', 'constructor']);
    expect(Reflect.get({}, 'polluted')).toBeUndefined();
    expect(Object.getPrototypeOf(value)).toBeNull();
  });

  it('throws nothing but TrustError, whatever it reads', () => {
    const bytes = fc.oneof(
      fc.uint8Array({ maxLength: 200 }),
      fc.string({ unit: fc.constantFrom(...'{}[]",:\\u0123eE.-truefalsn \n') }).map(toUtf8),
      fc.json().map(toUtf8),
    );
    fc.assert(
      fc.property(bytes, (input) => {
        try {
          parseStrictJson(input);
        } catch (error) {
          expect(error).toBeInstanceOf(TrustError);
        }
      }),
      { numRuns: 2000 },
    );
  });
});
