import { describe, expect, it } from 'vitest';
import { toHex } from '../../src/core/bytes.ts';
import { makePatch } from './delta-encoder.ts';
import { largeCases, smallCases, type Case } from './delta-plans.ts';

const patchOf = ({ base, target, plans, isBased = true }: Case): string =>
  toHex(makePatch(base, target, plans, { isBased }));
const json = (value: unknown): string => `${JSON.stringify(value, undefined, 2)}\n`;

describe('the published patches', () => {
  it('are what the specification makes of small files', async () => {
    const vectors = smallCases().map((one) => ({
      name: one.name,
      base: toHex(one.base),
      target: toHex(one.target),
      patch: patchOf(one),
    }));
    await expect(json(vectors)).toMatchFileSnapshot('../vectors/idp/small.json');
  });

  it('are what it makes of files of several blocks', async () => {
    const vectors = Object.fromEntries(largeCases().map((one) => [one.name, patchOf(one)]));
    await expect(json(vectors)).toMatchFileSnapshot('../vectors/idp/large.json');
  });
});
