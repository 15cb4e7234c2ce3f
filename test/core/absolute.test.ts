import { describe, expect, it } from 'vitest';
import { toAbsolute } from '../../src/core/absolute.ts';

describe('toAbsolute', () => {
  const location = { href: 'https://app.test/deep/page.html' };

  it('resolves against the base of the document, else against the address of the worker', () => {
    const document = { baseURI: 'https://cdn.test/' };
    expect(toAbsolute('a.wasm', { document, location })).toBe('https://cdn.test/a.wasm');
    expect(toAbsolute('a.wasm', { location })).toBe('https://app.test/deep/a.wasm');
  });

  it('leaves what is absolute, and what cannot be made so', () => {
    expect(toAbsolute(new URL('https://x.test/a'), { location })).toBe('https://x.test/a');
    expect(toAbsolute('a.wasm', {})).toBe('a.wasm');
    expect(toAbsolute('a.wasm', { location: { href: 'blob:https://x.test/1' } })).toBe('a.wasm');
  });
});
