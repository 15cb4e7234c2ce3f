import { createHash } from 'node:crypto';
import { mkdir, open, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, it, vi } from 'vitest';
import { encodeWithProgress } from '../../src/cli/patch-encode.ts';
import { replaceWhole } from '../../src/cli/patch-files.ts';
import type { CompactFacts } from '../../src/cli/publish-compact.ts';
import type { SnapFacts } from '../../src/cli/publish-snap.ts';
import type { ReleaseWay } from '../../src/publish/release-ways.ts';
import type { WritableFileSystem } from '../../src/optimize-node/staged-file.ts';
import { segmentsOf } from '../../src/publish/delta/spans.ts';
import { createRandom } from '../../src/stats/random.ts';
import type { ModelTarget } from '../../src/trust/metadata.ts';
import { startUser, type User } from './cli-user.ts';
import { draw, trainPair, width } from './compact-fixture.ts';
import { temporaryDirectory, verify } from './server-fixture.ts';

vi.mock('../../src/cli/publish-backend.ts', () => import('./publish-fixture.ts'));
vi.mock('../../src/optimize-node/target.ts', () => import('./optimize-fixture.ts'));

let pair: ReturnType<typeof trainPair>;
beforeAll(() => {
  pair = trainPair();
});

const hashOf = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

/** A publisher who has both models. */
async function startPublisher(): Promise<User> {
  const user = await startUser();
  await user.write('1.onnx', pair.base);
  await user.write('2.onnx', pair.next);
  return user;
}

/** A file with an update of rank 1 in one of its matrices. */
function mergeAdapter(file: Uint8Array, name: string): Uint8Array {
  const merged = file.slice();
  const { offset, shape: [rows = 0, columns = 0] = [] } =
    segmentsOf(file).find((span) => span.name === name) ?? {};
  const view = new DataView(merged.buffer, merged.byteOffset + (offset ?? 0));
  const random = createRandom(5);
  const [down, up] = [rows, columns].map((length) => Array.from({ length }, () => random() - 0.5));
  down?.forEach((a, i) => {
    up?.forEach((b, j) => {
      const at = 4 * (i * columns + j);
      view.setFloat32(at, view.getFloat32(at, true) + 0.01 * a * b, true);
    });
  });
  return merged;
}

interface Published {
  readonly path: string;
  readonly sha256: string;
  readonly compact: CompactFacts;
  readonly snap: SnapFacts;
  readonly ways: readonly ReleaseWay[];
}

describe('inlay publish --near and --small', () => {
  const held = draw(200, 11, 0.5);
  const rows = Array.from({ length: 200 }, (_, row) =>
    JSON.stringify({ x: [...held.x.subarray(row * width, (row + 1) * width)] }),
  );
  const publish = (version: string, ...flags: readonly string[]): readonly string[] => [
    ...['publish', version === '1' ? '1.onnx' : '2.onnx', '--name', 'm', '--version', version],
    // Whether they run is for other tests.
    ...['--no-check', ...flags],
  ];
  const signedOf = async (user: User, path: string): Promise<ModelTarget> => {
    const { targets } = await verify(user.server);
    return targets.targets[path]?.custom as unknown as ModelTarget;
  };

  it('publishes what was judged with a small patch, signs how it was rounded, and rounds around the anchor from then on', async () => {
    const user = await startPublisher();
    await user.write('held.jsonl', `${rows.join('\n')}\n`);
    const refused = await user.run(...publish('1', '--near'));
    expect([refused.code, refused.err]).toEqual([1, expect.stringContaining('no release')]);
    const first = await user.json<Published>(...publish('1'));
    const blind = await user.run(...publish('2', '--near'));
    expect([blind.code, blind.err]).toEqual([1, expect.stringContaining('is judged on data')]);

    // What was rounded is tried out as any release is.
    const near = publish('2', '--near', '--compact-data', 'held.jsonl').filter(
      (flag) => flag !== '--no-check',
    );
    const second = await user.json<Published>(...near);
    const { compact, ways, sha256, path } = second;
    expect(compact.sha256).toBe(sha256);
    expect(compact.anchor).toBe('1');
    expect(compact.chosen?.verdict.isGood).toBe(true);
    const patch = ways.find(({ kind }) => kind === 'patch');
    expect(patch?.from).toEqual(['1']);
    expect(patch?.sizeBytes).toBe(compact.chosen?.patchBytes);
    expect(patch?.sizeBytes).toBeLessThan(compact.losslessBytes / 2);
    expect((await signedOf(user, path)).compact).toEqual({
      mode: 'near',
      step: compact.chosen?.step,
      seed: 1,
      anchor: first.sha256,
    });
    // It comes out the same again: nothing is there twice.
    expect(await user.ok(...near)).toMatch(/was published before/);

    const small = ['--small', '--compact-metric', 'echo 1'];
    const closed = await user.run(...publish('3', ...small, '--compact-from', '2'));
    expect([closed.code, closed.err]).toEqual([1, expect.stringContaining('--trained-from-published')]);
    const shown = await user.ok(...publish('3', ...small, '--seed', '7'));
    expect(shown).toMatch(
      /Rounded around 1 \(--small\)[^]*4 σ +7 +[\d.]+ kB, [\d.]+ % +metric of the base 1 +none[^]*lost 0 +at most 0.01[^]*exactly as judged: [0-9a-f]{64}[^]*Published m 3[^]*patch fp32 from 1\n/,
    );
  });

  it('snaps weights to a grid if that is good enough, tries out what it signs, and says what it takes', async () => {
    const user = await startPublisher();
    await user.write('held.jsonl', `${rows.join('\n')}\n`);
    const good = await user.json<Published>(
      ...['publish', '2.onnx', '--name', 'm', '--version', '1'],
      ...['--snap', '8', '--compact-data', 'held.jsonl'],
    );
    expect(good.snap).toMatchObject({ bits: 8, isSnapped: true, sha256: good.sha256 });
    expect(good.ways.map(({ kind, codec, sizeBytes }) => [kind, codec, sizeBytes])).toEqual([
      ['compressed', 'gzip', good.snap.snapped.gzip],
      ['compressed', 'idp', good.snap.snapped.idp],
    ]);
    expect(good.snap.snapped.idp).toBeLessThan(0.34 * good.snap.sizeBytes);
    expect(good.snap.trained.idp).toBeGreaterThan(0.8 * good.snap.sizeBytes);
    expect((await signedOf(user, good.path)).snap).toEqual({ bits: 8 });

    const scored = ['--snap', '6', '--compact-metric', 'wc -c < "$INLAY_MODEL"'];
    expect(await user.ok(...publish('2', ...scored))).toMatch(
      /as trained[^]*6 bits +[\d.]+ kB, [\d.]+ % +[\d.]+ kB, [\d.]+ % +metric[^]*exactly as judged/,
    );
    const coarse = await user.json<Published>(...publish('3', '--snap', '1', '--compact-data', 'held.jsonl'));
    expect([coarse.snap.isSnapped, coarse.snap.verdict?.isGood]).toEqual([false, false]);
    expect((await signedOf(user, coarse.path)).snap).toBeUndefined();
    for (const [flags, problem] of [
      [['--snap', '6', '--near'], /cannot be used with/],
      [['--snap', '21'], /from 1 to 20/],
      [['--snap', '6', '--compact-from', '1'], /belongs to rounded releases/],
    ] as const)
      expect((await user.run(...publish('9', ...flags))).err).toMatch(problem);
  });

  it('takes flags about rounding only with --near or --small', async () => {
    const user = await startPublisher();
    const { code, err } = await user.run(...publish('9', '--seed', '3'));
    expect([code, err]).toEqual([1, expect.stringContaining('--seed belongs to rounded releases')]);
  });
});

describe('inlay publish --patch-from', () => {
  it('names the releases that each way starts from, also when nothing is published', async () => {
    const user = await startPublisher();
    // A bit of a weight: the patch from what is nearly the same is the smallest.
    const near = pair.next.slice();
    near[near.length >> 1] = (near[near.length >> 1] as number) ^ 1;
    await user.write('3.onnx', near);
    const publish = (file: string, version: string, ...from: readonly string[]): readonly string[] => [
      ...['publish', file, '--name', 'm', '--version', version, '--no-check'],
      ...(from.length === 0 ? [] : ['--patch-from', ...from]),
    ];
    await user.ok(...publish('1.onnx', '1'));
    await user.ok(...publish('1.onnx', '1-again'));
    await user.ok(...publish('2.onnx', '2', '1'));
    const last = publish('3.onnx', '3', '2');
    const shown = await user.ok(...last);
    expect(shown).toMatch(/idp +\d+ B \(\d+ bytes\), patch fp32 from 2\n/);
    expect(shown).toMatch(/idp +\S+ kB \(\d+ bytes\), earlier patch fp32 from 1 or 1-again to 2\n/);
    const { ways } = await user.json<Published>(...last);
    expect(ways.map(({ kind, from, to }) => [kind, from, to])).toEqual(
      expect.arrayContaining([
        ['patch', ['2'], undefined],
        ['hop', ['1', '1-again'], ['2']],
      ]),
    );
  });
});

describe('inlay diff', () => {
  it('tells for each tensor what its bytes are for, as text, JSON and a page that needs nothing else', async () => {
    const user = await startPublisher();
    const out = await user.ok('diff', '1.onnx', '2.onnx', '--explain', '--html', 'diff.html');
    expect(out).toMatch(/patch +[\d.]+ kB, \d\d(\.\d)? % of the file/);
    expect(out).toMatch(/w0 +float32 32 × 128 +delta, \S+ +\d+\.\d\d +[\d.]+ kB +[\d.]+ % +noise/);
    const page = await readFile(user.path('diff.html'), 'utf8');
    expect(page).toMatch(/<svg[^]*w1[^]*prefers-color-scheme|prefers-color-scheme[^]*<svg[^]*w1/);
    expect(page).not.toMatch(/<script|https?:/);
    const { segments } = await user.json<{ segments: { names: string[] }[] }>('diff', '1.onnx', '1.onnx');
    expect(segments).toHaveLength(1);
  });

  it('tells the rank of an adapter that was merged, and what its factors take', async () => {
    const user = await startPublisher();
    await user.write('merged.onnx', mergeAdapter(pair.base, 'w1'));
    const out = await user.ok('diff', '1.onnx', 'merged.onnx', '--explain');
    expect(out).toMatch(/patch +[\d.]+ kB, \d(\.\d+)? % of the file/);
    expect(out).toMatch(/w1 +float32 128 × 64 +delta, low-rank 1 \(\d+ B\)(, \w+)? +\d\.\d\d /);
  });

  it('says of an empty file that it is empty, without a table or a share', async () => {
    const user = await startPublisher();
    await user.write('empty.onnx', '');
    for (const base of ['empty.onnx', '1.onnx']) {
      const { code, out, err } = await user.run('diff', base, 'empty.onnx');
      expect([code, err]).toEqual([0, '']);
      expect(out).toMatch(/^patch +\d+ B\n[^]*the new file is empty/);
      expect(out).not.toMatch(/mode|%/);
    }
  });

  it('shows how many tensors it has come to', () => {
    const shown: string[] = [];
    encodeWithProgress(pair.base, pair.next, {
      update: ({ position, total, rows }) => shown.push(`${position} of ${total}, ${rows}`),
      stop: () => shown.push('end'),
    });
    const count = shown.length - 2;
    expect(count).toBeGreaterThan(2);
    const steps = Array.from({ length: count + 1 }, (_, i) => `${i} of ${count}, ${i}`);
    expect(shown).toEqual([...steps, 'end']);
  });

  it('says what is wrong with a file that cannot be read', async () => {
    const user = await startPublisher();
    await mkdir(user.path('folder'));
    for (const [file, problem] of [
      ['none.onnx', /no file \S+none.onnx; check the path. \(ERR_INLAY_MODEL_NOT_FOUND\)/],
      ['folder', /folder is a folder; name a file in it. \(ERR_INLAY_STORE_IO\)/],
    ] as const) {
      const { code, err } = await user.run('diff', '1.onnx', file);
      expect([code, err]).toEqual([1, expect.stringMatching(problem)]);
    }
  });
});

describe('inlay patch', () => {
  it('makes patches, shows them, and makes the very file of them', async () => {
    const user = await startPublisher();
    const made = await user.json<Readonly<Record<'sha256' | 'base' | 'target', string>> & { share: number }>(
      ...['patch', 'create', '1.onnx', '2.onnx', '-o', 'p.idp'],
    );
    expect(made.share).toBeLessThan(0.8);
    expect(made).toMatchObject({
      v: 1,
      sha256: hashOf(await readFile(user.path('p.idp'))),
      base: hashOf(pair.base),
      target: hashOf(pair.next),
    });
    const shown = await user.ok('patch', 'show', 'p.idp');
    expect(shown).toMatch(/target {2}[0-9a-f]{64}/);
    expect(shown).toMatch(/delta/);
    await user.ok('patch', 'apply', '1.onnx', 'p.idp', '-o', 'again.onnx');
    expect((await readFile(user.path('again.onnx'))).equals(pair.next)).toBe(true);
  });

  it('writes nothing for another base or a patch that was damaged', async () => {
    const user = await startPublisher();
    await user.ok('patch', 'create', '1.onnx', '2.onnx', '-o', 'p.idp');
    const damaged = await readFile(user.path('p.idp'));
    damaged[damaged.length - 9] = (damaged.at(-9) as number) ^ 1;
    await user.write('damaged.idp', damaged);
    await user.write('no.idp', 'no patch');
    await user.write('cut.idp', damaged.subarray(0, 100));
    for (const [base, patch, problem] of [
      ['2.onnx', 'p.idp', /give that file/],
      ['1.onnx', 'damaged.idp', /patch \S+damaged.idp is cut short or damaged; [^.]*patch create/],
      ['1.onnx', 'cut.idp', /patch \S+cut.idp is cut short or damaged/],
      ['1.onnx', 'no.idp', /file \S+no.idp is no patch of version 1; [^.]*patch create/],
      ['1.onnx', '1.onnx', /file \S+1.onnx is no patch/],
    ] as const) {
      const { code, err } = await user.run('patch', 'apply', base, patch, '-o', 'never.onnx');
      expect([code, err]).toEqual([1, expect.stringMatching(/\(ERR_INLAY_PATCH\)$/)]);
      expect(err).toMatch(problem);
    }
    expect((await user.run('patch', 'show', 'cut.idp')).err).toMatch(/cut short/);
    expect((await readdir(user.cwd)).filter((name) => name.includes('never'))).toEqual([]);
  });

  it('leaves what was there when the disk fails at any step', async () => {
    const folder = await temporaryDirectory();
    const kept = join(folder, 'kept');
    await writeFile(kept, 'before');
    let calls = 0;
    const failAt = (step: number): WritableFileSystem => {
      calls = 0;
      const fails = (): void => {
        calls += 1;
        if (calls === step) throw Object.assign(new Error('no space'), { code: 'ENOSPC' });
      };
      return {
        rm,
        rename: async (from, to) => {
          fails();
          await rename(from, to);
        },
        open: async (path, flags) => {
          if (flags === 'r') return open(path, flags);
          fails();
          const file = await open(path, flags);
          return {
            writev: async (buffers, position) => {
              fails();
              return file.writev(buffers as Uint8Array[], position);
            },
            sync: async () => {
              fails();
              await file.sync();
            },
            close: () => file.close(),
          };
        },
      };
    };
    for (let step = 1; step <= 4; step += 1) {
      const writing = replaceWhole(kept, [Uint8Array.of(1)], undefined, failAt(step));
      await expect(writing).rejects.toMatchObject({ code: 'ERR_INLAY_STORE_FULL' });
      expect(await readFile(kept, 'utf8')).toBe('before');
    }
    expect(await readdir(folder)).toEqual(['kept']);
  });
});
