import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { isRange, isVersion, rulesHold, satisfies } from '../../../src/update/rules.ts';

describe('versions', () => {
  it('are ordered as SemVer 2.0 §11 says', () => {
    // The specification's own example, with the neighbours that it names.
    const ascending = [
      '1.0.0-alpha',
      '1.0.0-alpha.1',
      '1.0.0-alpha.beta',
      '1.0.0-beta',
      '1.0.0-beta.2',
      '1.0.0-beta.11',
      '1.0.0-rc.1',
      '1.0.0',
      '2.0.0',
      '2.1.0',
      '2.1.1',
      '2.1.10',
      '2.1.99999999999999999998',
      '2.1.99999999999999999999',
    ];
    for (const [i, low] of ascending.entries()) {
      for (const [j, high] of ascending.entries()) {
        const is = (operator: string): boolean => satisfies(low, `${operator}${high}`);
        expect([low, high, is('<'), is('<='), is('='), is('>='), is('>')]).toEqual([
          low,
          high,
          i < j,
          i <= j,
          i === j,
          i >= j,
          i > j,
        ]);
      }
    }
  });

  it.each(['1.0.0', '0.0.0', '1.0.0-0.a-b.--', '1.0.0+001', '1.0.0-rc.1+a.b', '10.20.30'])(
    '%s is one',
    (text) => {
      expect(isVersion(text)).toBe(true);
    },
  );

  it.each([
    '',
    '1',
    '1.0',
    '1.0.0.0',
    'v1.0.0',
    '01.0.0',
    '1.0.0-',
    '1.0.0-01',
    '1.0.0-a..b',
    '1.0.0+',
    ' 1.0.0',
    '1.0.0\n',
    '1.0.-1',
  ])('%j is none', (text) => {
    expect(isVersion(text)).toBe(false);
  });

  it('that are very long are refused', () => {
    expect(isVersion(`1.0.0-${'a'.repeat(250)}`)).toBe(true);
    expect(isVersion(`1.0.0-${'a'.repeat(251)}`)).toBe(false);
    expect(isRange(Array.from({ length: 40 }, () => '>=1.0.0').join(' '))).toBe(false);
  });
});

describe('ranges', () => {
  it.each(['>=1.0.0', '>1.0.0 <2.0.0', '=1.0.0-rc.1', '<=1.0.0+build'])('%s is one', (text) => {
    expect(isRange(text)).toBe(true);
  });

  it.each([
    '',
    ' ',
    '1.0.0',
    '>= 1.0.0',
    '>=1.0',
    '^1.0.0',
    '>=1.0.0  <2.0.0',
    '>=1.0.0,<2.0.0',
    '=>1.0.0',
    '==1.0.0',
    '>=1.0.0 ',
  ])('%j is none', (text) => {
    expect(isRange(text)).toBe(false);
    expect(satisfies('1.0.0', text)).toBe(false);
  });

  it('take time in proportion to their length, whatever they are', () => {
    const pieces = fc.array(fc.constantFrom('>=', '<', '1', '0', '.', '-', '+', 'a', ' '), {
      maxLength: 300,
    });
    fc.assert(
      fc.property(pieces, (parts) => {
        const text = parts.join('');
        if (!isRange(text)) expect(satisfies('1.0.0', text)).toBe(false);
      }),
    );
  });

  it('hold exactly where all of their comparisons do', () => {
    const numbers = fc.integer({ min: 0, max: 12 });
    const versions = fc.tuple(numbers, numbers, numbers);
    fc.assert(
      fc.property(versions, versions, versions, (version, low, high) => {
        const order = (a: readonly number[], b: readonly number[]): number =>
          a.map((n, i) => n - (b[i] ?? 0)).find((n) => n !== 0) ?? 0;
        const expected = order(version, low) >= 0 && order(version, high) < 0;
        expect(satisfies(version.join('.'), `>=${low.join('.')} <${high.join('.')}`)).toBe(expected);
      }),
    );
  });
});

describe('rules', () => {
  it('hold for everybody where there are none', () => {
    expect(rulesHold([], { id: 'i', runtime: 'node', sdk: 'unknown' })).toBe(true);
  });

  it('that say less hold for more devices', () => {
    const names = fc.constantFrom('a', 'b', 'c');
    const facts = fc.record({ os: names, arch: names, memoryMiB: fc.nat(3) }, { requiredKeys: [] });
    const rules = fc.record(
      { os: fc.array(names), arch: fc.array(names), minMemoryMiB: fc.nat(3) },
      { requiredKeys: [] },
    );
    fc.assert(
      fc.property(facts, rules, fc.constantFrom('os', 'arch', 'minMemoryMiB'), (known, rule, name) => {
        const install = { id: 'i', runtime: 'node', sdk: '1.0.0', ...known };
        const less = Object.fromEntries(Object.entries(rule).filter(([key]) => key !== name));
        if (rulesHold([rule], install)) expect(rulesHold([less], install)).toBe(true);
      }),
    );
  });
});
