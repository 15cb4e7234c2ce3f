/**
 * Creates a function that gives the same text for values that mean the same: numbers, texts, URLs, and plain objects and arrays
 * of them, whatever the order of their properties. Anything else, such as bytes and functions, is only equal to itself.
 */
export function createKeys(): (value: unknown) => string {
  const identities = new WeakMap<object, number>();
  let count = 0;

  const identify = (value: object): string => {
    const identity = identities.get(value) ?? (count += 1);
    identities.set(value, identity);
    return `#${identity}`;
  };

  const keyOf = (value: unknown): string => {
    if (typeof value === 'function') return identify(value);
    if (typeof value === 'bigint') return `${value}n`;
    if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? 'undefined';
    if (Array.isArray(value)) return `[${value.map(keyOf).join()}]`;
    if (isPlain(value)) {
      const entries = Object.entries(value).filter(([, part]) => part !== undefined);
      const parts = entries.map(([name, part]) => `${JSON.stringify(name)}:${keyOf(part)}`);
      return `{${parts.sort().join()}}`;
    }
    // Components often make the same URL anew for each render.
    return value instanceof URL ? JSON.stringify(value.href) : identify(value);
  };
  return keyOf;
}

function isPlain(value: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === null || prototype === Object.prototype;
}
