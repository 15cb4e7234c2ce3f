/** Reference profiles that `inlay publish` makes of examples. */
import { readFile } from 'node:fs/promises';
import { describe, expect, it, vi } from 'vitest';
import type { Profile } from '../../src/telemetry/profile.ts';
import { readProfile } from '../../src/telemetry/profile-reader.ts';
import { startUser, type User } from './cli-user.ts';
import { failsAtRun, scale } from './publish-fixture.ts';
import { verify } from './server-fixture.ts';

vi.mock('../../src/cli/publish-backend.ts', () => import('./publish-fixture.ts'));

const publish = ['publish', 'm.onnx', '--name', 'm', '--version', '1', '--golden', 'none'] as const;

/** The larger of two scores is the class; one label in ten is wrong, and one is missing. */
const examples = Array.from({ length: 40 }, (_, i) => {
  const [a, b] = [(i % 7) / 10, ((i * 3) % 11) / 20];
  const best = a >= b ? 0 : 1;
  return { a, b, label: i === 5 ? '' : String(i % 10 === 0 ? 1 - best : best) };
});

async function publisher(): Promise<User> {
  const user = await startUser();
  await user.write('m.onnx', scale(1));
  const lines = examples.map(({ a, b, label }) => `${a},${b},${label}`);
  await user.write('train.csv', `a,b,label\n${lines.join('\n')}\n`);
  await user.write('x.jsonl', examples.map(({ a, b }) => `[${a},${b}]\n`).join(''));
  await user.write('y.jsonl', examples.map(({ label }) => `${label === '' ? 'null' : label}\n`).join(''));
  return user;
}

describe('inlay publish --reference', () => {
  it('makes the profile of the examples, shows it, and signs it', async () => {
    const user = await publisher();
    const out = await user.ok(
      ...[...publish, '--reference', 'train.csv', '--labels', 'label', '--profile-out', 'seen.json'],
    );
    expect(out).toMatch(/^Reference profile of 40 examples\nfeature +of +reading +bins\n/);
    expect(out).toMatch(/\nx +input x +elements +\d+ from \S+ to \S+\n/);
    expect(out).toMatch(/\ny\.class +output y +argmax +2 classes\n/);
    expect(out).toMatch(/\ny\.confidence +output y +max +\d+ from /);
    expect(out).toMatch(/\ny\.class is right in 89\.74 % of 39 labels\n\nPublished m 1\n/);
    const bytes = new Uint8Array(await readFile(user.path('seen.json')));
    const profile = readProfile(bytes);
    expect(profile).toMatchObject({ prediction: 'y.class', confidence: 'y.confidence' });
    expect(profile.inputs['x']?.counts.reduce((sum, count) => sum + count, 0)).toBe(80);
    expect(profile.calibration?.reduce((sum, [n]) => sum + n, 0)).toBe(39);
    const { targets } = await verify(user.server);
    expect(targets.targets['models/m/1/profile.json']?.length).toBe(bytes.length);
  });

  it('gives the same profile for the same examples, wherever their labels lie', async () => {
    const user = await publisher();
    const make = async (name: string, ...args: string[]): Promise<string> => {
      await user.ok(...publish, ...args, '--profile-out', name, '--json');
      return readFile(user.path(name), 'utf8');
    };
    const first = await make('1.json', '--reference', 'train.csv', '--labels', 'label');
    expect(await make('2.json', '--reference', 'x.jsonl', '--labels', 'y.jsonl')).toBe(first);
  });

  it('counts answers in the bins of the newest release, unless it is to have its own', async () => {
    const user = await publisher();
    await user.write('w.onnx', scale(3));
    const outputsOf = async (version: string, ...args: string[]): Promise<Profile['outputs']> => {
      const release = ['publish', version === '1' ? 'm.onnx' : 'w.onnx', '--name', 'm', '--version', version];
      await user.ok(
        ...release,
        '--golden',
        'none',
        '--reference',
        'x.jsonl',
        '--profile-out',
        'seen.json',
        ...args,
      );
      return readProfile(new Uint8Array(await readFile(user.path('seen.json')))).outputs;
    };
    const edgesOf = (outputs: Profile['outputs']): unknown => {
      const confidence = outputs['y.confidence'];
      return confidence?.type === 'number' ? confidence.edges : undefined;
    };
    const first = edgesOf(await outputsOf('1'));
    expect(first).toBeInstanceOf(Array);
    expect(edgesOf(await outputsOf('2'))).toEqual(first);
    expect(edgesOf(await outputsOf('3', '--own-bins'))).not.toEqual(first);
  });

  it('says what is wrong with examples and labels, and publishes nothing', async () => {
    const user = await publisher();
    await user.write('short.jsonl', '1\n0\n');
    await user.write('lists.jsonl', '[1]\n');
    await user.write('bad.jsonl', '[1,2]\n[1,"two"]\n');
    await user.write('empty.jsonl', '');
    const failing: readonly (readonly [args: readonly string[], message: string])[] = [
      [['--reference', 'none.csv'], 'cannot be opened'],
      [['--reference', 'empty.jsonl'], 'holds no examples'],
      [['--reference', 'bad.jsonl'], 'bad.jsonl, line 2, does not fit the model'],
      [['--reference', 'train.csv', '--labels', 'class'], 'has no column "class"'],
      [['--reference', 'x.jsonl', '--labels', 'short.jsonl'], 'does not have as many rows'],
      [['--reference', 'x.jsonl', '--labels', 'lists.jsonl'], 'several values for a label'],
      [['--reference', 'x.jsonl', '--labels', 'train.csv'], 'has more columns'],
      [['--labels', 'label'], '--labels belongs to examples'],
      [['--reference', 'x.jsonl', '--profile-out', 'none/p.json'], 'nothing was published'],
    ];
    for (const [args, message] of failing) {
      const { code, err } = await user.run(...publish, '--no-check', ...args);
      expect([code, err]).toEqual([1, expect.stringContaining(message)]);
    }
    await user.write('m.onnx', failsAtRun);
    const { err } = await user.run(...publish, '--no-check', '--reference', 'x.jsonl');
    expect(err).toContain('x.jsonl, line 1, cannot be run');
    expect((await verify(user.server)).targets.version).toBe(1);
  });
});
