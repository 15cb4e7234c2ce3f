/** A value of {@link parsePythonLiteral}. Tuples and lists are both arrays; dictionaries have text for keys. */
export type PythonValue =
  | string
  | number
  | boolean
  | readonly PythonValue[]
  | ReadonlyMap<string, PythonValue>;

const token = /\s*(?:([{}()[\],:])|'((?:[^'\\\n])*)'|"((?:[^"\\\n])*)"|(True|False)\b|(-?\d+)L?\b)/y;
/** Deeper nesting has no use in a header. */
const depthCap = 16;

/**
 * Reads the Python literals of which `.npy` headers are made: dictionaries, tuples, lists, text without escapes,
 * integers, `True` and `False`.
 * @returns `undefined` for anything else, and for a key that comes twice.
 */
export function parsePythonLiteral(source: string): PythonValue | undefined {
  const text = source.trimEnd();
  let at = 0;
  let [mark, value] = ['', undefined as string | number | boolean | undefined];

  const next = (): boolean => {
    token.lastIndex = at;
    const found = token.exec(text);
    if (found === null) return false;
    at = token.lastIndex;
    const [, punctuation = '', single, double, truth, integer] = found;
    mark = punctuation;
    value = single ?? double ?? (truth !== undefined ? truth === 'True' : integer && Number(integer));
    return true;
  };

  const is = (wanted: string): boolean => mark === wanted;

  /** Reads what begins with the present token. */
  const read = (depth: number): PythonValue | undefined => {
    if (is('')) return value;
    if (depth > depthCap) return undefined;
    if (is('{')) return readDictionary(depth);
    return is('(') || is('[') ? readItems(is('(') ? ')' : ']', depth) : undefined;
  };

  const readItems = (close: string, depth: number): PythonValue[] | undefined => {
    const items: PythonValue[] = [];
    for (;;) {
      if (!next()) return undefined;
      if (is(close)) return items;
      const item = read(depth + 1);
      if (item === undefined) return undefined;
      items.push(item);
      if (!next()) return undefined;
      if (is(close)) return items;
      if (!is(',')) return undefined;
    }
  };

  const readDictionary = (depth: number): Map<string, PythonValue> | undefined => {
    const entries = new Map<string, PythonValue>();
    for (;;) {
      if (!next()) return undefined;
      if (is('}')) return entries;
      const key = read(depth + 1);
      if (typeof key !== 'string' || entries.has(key)) return undefined;
      if (!next() || !is(':') || !next()) return undefined;
      const item = read(depth + 1);
      if (item === undefined) return undefined;
      entries.set(key, item);
      if (!next()) return undefined;
      if (is('}')) return entries;
      if (!is(',')) return undefined;
    }
  };

  const whole = next() ? read(0) : undefined;
  return at === text.length ? whole : undefined;
}
