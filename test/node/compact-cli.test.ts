import { expect, it, vi } from 'vitest';
import type { CompactFacts } from '../../src/cli/publish-compact.ts';
import { startUser } from './cli-user.ts';
import { trainPair } from './compact-fixture.ts';

vi.mock('../../src/cli/publish-backend.ts', () => import('./publish-fixture.ts'));

interface Published {
  readonly compact: CompactFacts;
  readonly ways: readonly { readonly kind: string; readonly sizeBytes: number }[];
}

it('a release is judged by a command of the publisher, and has a lossless patch where it is not rounded', async () => {
  const pair = trainPair();
  const user = await startUser();
  await user.write('1.onnx', pair.base);
  await user.write('2.onnx', pair.next);
  // Only what was trained is any good.
  await user.write(
    'score.mjs',
    `import { readFileSync } from 'node:fs';
     const next = readFileSync(${JSON.stringify(user.path('2.onnx'))});
     console.log(Number(next.equals(readFileSync(process.env.INLAY_MODEL))));`,
  );
  const publish = ['publish', '--name', 'm', '--no-check', '--version'];
  await user.ok(...publish, '1', '1.onnx');
  const metric = `"${process.execPath}" score.mjs`;
  const { compact, ways } = await user.json<Published>(
    ...[...publish, '2', '2.onnx', '--near', '--compact-metric', metric],
  );
  expect(compact.chosen).toBeNull();
  expect(compact.attempts.map(({ step }) => step)).toEqual(['1/2', '1/4', '1/8']);
  expect(compact.attempts[0]?.verdict.figures).toContainEqual({ name: 'metric', value: 0 });
  expect(ways.find(({ kind }) => kind === 'patch')?.sizeBytes).toBe(compact.losslessBytes);
});
