import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { matches } from '../../../src/trust/delegations.ts';

describe('a path pattern', () => {
  it.each([
    ['*', 'a', true],
    ['*', '', true],
    ['*', 'a/b', false],
    ['*/*', 'a/b', true],
    ['a/*', 'a/', true],
    ['a/*.tgz', 'a/b.tgz', true],
    ['a/*.tgz', 'a/b.tgz2', false],
    ['?', '', false],
    ['?', '/', false],
    ['a?c', 'abc', true],
    ['a*b*c', 'a-b-b-c', true],
    ['a*b*c', 'a-b-b', false],
    ['a**', 'a', true],
    ['A', 'a', false],
    ['[ab]', 'a', false],
    ['[ab]', '[ab]', true],
    ['a.b', 'a-b', false],
    ['', 'a', false],
  ])('%j and %j: %s', (pattern, path, isMatch) => {
    expect(matches(pattern, path)).toBe(isMatch);
  });

  it('matches as the regular expression does that says the same', () => {
    const text = fc.string({ unit: fc.constantFrom('a', 'b', '/', '.'), maxLength: 10 });
    const pattern = fc.string({ unit: fc.constantFrom('a', 'b', '/', '.', '*', '?'), maxLength: 8 });
    fc.assert(
      fc.property(pattern, text, (glob, path) => {
        const source = glob.replace(/\./g, '\\.').replace(/\*+/g, '[^/]*').replace(/\?/g, '[^/]');
        expect(matches(glob, path)).toBe(new RegExp(`^${source}$`).test(path));
      }),
      { numRuns: 3000 },
    );
  });

  it('takes no more steps than the product of the lengths', () => {
    // A regular expression with so many stars would not end.
    expect(matches(`${'*a'.repeat(500)}*b`, 'a'.repeat(5000))).toBe(false);
  });
});
