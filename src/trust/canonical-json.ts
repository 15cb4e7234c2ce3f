/**
 * Canonical JSON as TUF signs it, and a JSON reader that accepts only what has one canonical form.
 * OLPC canonical JSON (TUF 1.0 §4.2 "Metaformat"), which is not RFC 8785.
 */

import { fromUtf8, toUtf8 } from '../core/bytes.ts';
import { TrustError } from '../core/errors.ts';

/** How deep arrays and objects may nest. Signed metadata needs about ten levels. */
const maxDepth = 32;

const loneSurrogate = /[\ud800-\udfff]/u;
const surrogate = /[\ud800-\udfff]/;
/** What makes a string more than its characters between quotes. */
const special = /["\\\ud800-\udfff]/;

/**
 * Encodes a value as OLPC canonical JSON: no white space, keys in code point order, only `\` and `"` escaped.
 * @throws `TypeError` for anything without a canonical form: fractions, unsafe integers, `undefined`, functions,
 * lone surrogates.
 */
export function canonicalJson(value: unknown): Uint8Array<ArrayBuffer> {
  const parts: string[] = [];
  write(value, parts);
  return toUtf8(parts.join(''));
}

function write(value: unknown, parts: string[]): void {
  if (value === null || typeof value === 'boolean') {
    parts.push(String(value));
  } else if (typeof value === 'number') {
    if (!Number.isSafeInteger(value)) {
      throw new TypeError(
        `Canonical JSON has no form for the number ${value}; use a safe integer or a string.`,
      );
    }
    parts.push(String(value));
  } else if (typeof value === 'string') {
    parts.push(quote(value));
  } else if (Array.isArray(value)) {
    parts.push('[');
    value.forEach((item: unknown, i) => {
      if (i > 0) parts.push(',');
      write(item, parts);
    });
    parts.push(']');
  } else if (typeof value === 'object') {
    parts.push('{');
    const fields = value as Readonly<Record<string, unknown>>;
    const keys = Object.keys(fields);
    // Without surrogates the order of UTF-16, which is the faster one, is that of code points.
    if (keys.some((key) => surrogate.test(key))) keys.sort(compareCodePoints);
    else keys.sort();
    keys.forEach((key, i) => {
      parts.push(i > 0 ? ',' : '', quote(key), ':');
      write(fields[key], parts);
    });
    parts.push('}');
  } else {
    throw new TypeError(`Canonical JSON has no form for a value of type ${typeof value}; leave it out.`);
  }
}

function quote(text: string): string {
  if (!special.test(text)) return `"${text}"`;
  if (loneSurrogate.test(text)) {
    throw new TypeError('Canonical JSON has no form for a lone surrogate; use well-formed Unicode text.');
  }
  return `"${text.replace(/["\\]/g, '\\$&')}"`;
}

/** UTF-16 order, which `sort` uses, differs from this one for characters beyond the basic plane. */
function compareCodePoints(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i += 1) {
    const difference = (a.codePointAt(i) as number) - (b.codePointAt(i) as number);
    if (difference !== 0) return difference;
  }
  return a.length - b.length;
}

/**
 * Parses JSON whose meaning is beyond doubt: integers only, no duplicate keys, no lone surrogates, at most 32 levels.
 * Objects have no prototype, so keys such as `__proto__` or `constructor` are ordinary.
 * @throws {@link TrustError} `ERR_INLAY_METADATA_INVALID`
 */
export function parseStrictJson(bytes: Uint8Array): unknown {
  let text: string;
  try {
    text = fromUtf8(bytes);
  } catch (cause) {
    throw new TrustError('ERR_INLAY_METADATA_INVALID', 'Metadata is not UTF-8 text; fetch it again.', {
      cause,
    });
  }
  return createReader(text).read();
}

const integer = /0|-?[1-9][0-9]{0,15}/y;
const numeric = /[0-9.eE]/;
const quotationMark = 0x22;
const backslash = 0x5c;
const words = new Map<string, boolean | null>([
  ['true', true],
  ['false', false],
  ['null', null],
]);

function createReader(text: string): { read(): unknown } {
  let at = 0;

  const fail = (problem: string, cause?: unknown): never => {
    throw new TrustError(
      'ERR_INLAY_METADATA_INVALID',
      `Metadata is not strict JSON: ${problem} at offset ${at}; fetch it again or have it published anew.`,
      { details: { offset: at }, ...(cause !== undefined && { cause }) },
    );
  };

  const skipSpace = (): void => {
    while (at < text.length && ' \t\n\r'.includes(text.charAt(at))) at += 1;
  };

  const take = (token: string): boolean => {
    skipSpace();
    const found = text.startsWith(token, at);
    if (found) at += token.length;
    return found;
  };

  const expect = (token: string): void => {
    if (!take(token)) fail(`expected ${token}`);
  };

  const readString = (): string => {
    expect('"');
    const start = at;
    let escaped = false;
    for (let code = text.charCodeAt(at); code !== quotationMark; code = text.charCodeAt((at += 1))) {
      if (at >= text.length) fail('unfinished string');
      if (code < 0x20) fail('unescaped control character');
      if (code === backslash) {
        escaped = true;
        at += 1;
      }
    }
    at += 1;
    let value = text.slice(start, at - 1);
    if (escaped) {
      try {
        value = JSON.parse(`"${value}"`) as string;
      } catch (cause) {
        fail('bad escape', cause);
      }
    }
    return surrogate.test(value) && loneSurrogate.test(value) ? fail('lone surrogate') : value;
  };

  const readNumber = (): number => {
    integer.lastIndex = at;
    const digits = integer.exec(text)?.[0] ?? fail('unexpected character');
    const value = Number(digits);
    at += digits.length;
    if (!Number.isSafeInteger(value) || numeric.test(text.charAt(at)))
      fail('a number that is no safe integer');
    return value;
  };

  const readArray = (depth: number): unknown[] => {
    const items: unknown[] = [];
    if (take(']')) return items;
    do items.push(readValue(depth + 1));
    while (take(','));
    expect(']');
    return items;
  };

  const readObject = (depth: number): unknown => {
    const fields = Object.create(null) as Record<string, unknown>;
    if (take('}')) return fields;
    do {
      const key = readString();
      if (Object.hasOwn(fields, key)) fail('duplicate key');
      expect(':');
      fields[key] = readValue(depth + 1);
    } while (take(','));
    expect('}');
    return fields;
  };

  const readValue = (depth: number): unknown => {
    if (depth > maxDepth) fail(`more than ${maxDepth} levels`);
    skipSpace();
    if (text.charAt(at) === '"') return readString();
    if (take('{')) return readObject(depth);
    if (take('[')) return readArray(depth);
    for (const [word, value] of words) if (take(word)) return value;
    return readNumber();
  };

  return {
    read: () => {
      const value = readValue(1);
      skipSpace();
      return at === text.length ? value : fail('text after the end');
    },
  };
}
