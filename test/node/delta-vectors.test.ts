import { describe, expect, it } from 'vitest';
import { concatBytes, toHex } from '../../src/core/bytes.ts';
import { writeHead } from '../../src/update/delta/write-head.ts';
import { makePatch } from './delta-encoder.ts';
import { largeCases, refusedHeads, smallCases, type Case } from './delta-plans.ts';

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

  it('that are refused have one fault each', async () => {
    const vectors = refusedHeads().map(({ why, head }) => {
      const payload = new Uint8Array(head.blocks.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0));
      return { why, patch: toHex(concatBytes([writeHead(head), payload])) };
    });
    await expect(json(vectors)).toMatchFileSnapshot('../vectors/idp/refused.json');
  });

  it('are what it makes of files of several blocks', async () => {
    const vectors = Object.fromEntries(largeCases().map((one) => [one.name, patchOf(one)]));
    await expect(json(vectors)).toMatchFileSnapshot('../vectors/idp/large.json');
  });
});
