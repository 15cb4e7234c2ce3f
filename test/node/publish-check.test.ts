import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import { checkRelease, type CheckRequest } from '../../src/cli/publish-check.ts';
import { openCheckBackend } from '../../src/cli/publish-backend.ts';
import { BackendError } from '../../src/core/errors.ts';
import { Tensor } from '../../src/core/tensor.ts';
import { readGolden } from '../../src/update/golden.ts';
import { bytesOf, npy } from './cli-data-fixture.ts';
import {
  failsAtRun,
  modelOf,
  needsWidth,
  otherSignature,
  random,
  scale,
  unknownOperator,
} from './publish-fixture.ts';
import { temporaryDirectory } from './server-fixture.ts';
import { loopModel } from './worker-fixture.ts';

vi.mock('../../src/cli/publish-backend.ts', async () => {
  const real = await import('./publish-fixture.ts');
  return { openCheckBackend: vi.fn(real.openCheckBackend) };
});

type Checked = Awaited<ReturnType<typeof checkRelease>>;

function check(
  reference: Uint8Array<ArrayBuffer>,
  more: Partial<CheckRequest> & {
    readonly variants?: Readonly<Record<string, Uint8Array<ArrayBuffer>>>;
  } = {},
): Promise<Checked> {
  const { variants = {}, ...request } = more;
  const others = Object.entries(variants).map(([variant, bytes]) => ({ variant, bytes }));
  return checkRelease({
    files: [{ variant: 'fp32', bytes: reference }, ...others],
    golden: 'auto',
    tolerance: undefined,
    timeoutMs: 20_000,
    ...request,
  });
}

async function fileOf(name: string, content: string | Uint8Array): Promise<string> {
  const path = join(await temporaryDirectory(), name);
  await writeFile(path, content);
  return path;
}

describe('a model that is to be published', () => {
  it('gets golden inputs that are made up, the same ones each time', async () => {
    const { golden, notices } = await check(scale(3));
    const cases = readGolden(golden?.bytes ?? new Uint8Array());
    expect(notices).toEqual([]);
    expect(cases).toHaveLength(2);
    for (const { inputs, outputs } of cases) {
      const [a = 0, b = 0] = inputs['x']?.data as Float32Array;
      expect(outputs['y']?.data).toEqual(Float32Array.of(3 * a, 3 * b));
    }
    expect(golden).toMatchObject({ tolerance: { absoluteE6: 100, relativeE6: 1000 }, isMadeUp: true });
    expect((await check(scale(3))).golden?.bytes).toEqual(golden?.bytes);
  });

  it.each([
    ['is garbage', new Uint8Array(64).fill(0xab)],
    ['is cut short', scale(3).slice(0, -20)],
    ['has an operator that nobody knows', unknownOperator],
  ])('is refused if it %s', async (_, bytes) => {
    await expect(check(bytes)).rejects.toMatchObject({
      code: expect.stringMatching(/^ERR_INLAY_MODEL_(INVALID|UNSUPPORTED)$/) as string,
      message: expect.stringMatching(
        /^The model \(fp32\) is not published: it does not load: .+\.$/s,
      ) as string,
    });
  });

  it('is refused if it loads and does not run', async () => {
    await expect(check(failsAtRun)).rejects.toMatchObject({
      code: 'ERR_INLAY_MODEL_UNSUPPORTED',
      message: expect.stringContaining('it does not run:') as string,
    });
  });

  it('is refused if a run takes longer than it may', async () => {
    const golden = await fileOf('long.json', JSON.stringify([{ inputs: { x: [0], times: 1e12 } }]));
    await expect(
      check(loopModel() as Uint8Array<ArrayBuffer>, { golden, timeoutMs: 500 }),
    ).rejects.toMatchObject({ code: 'ERR_INLAY_MODEL_UNSUPPORTED' });
  });

  it.each([Number.NaN, Number.POSITIVE_INFINITY])('is refused if it answers with %s', async (factor) => {
    await expect(check(scale(factor))).rejects.toMatchObject({
      code: 'ERR_INLAY_MODEL_UNSUPPORTED',
      message: expect.stringContaining('golden input 1 has values that are no finite numbers') as string,
    });
  });

  it('has no golden outputs if it does not give the same answer twice', async () => {
    const { golden, notices } = await check(random);
    expect(golden).toBeUndefined();
    expect(notices).toEqual([expect.stringContaining('does not give the same answer twice')]);
  });

  it('keeps golden outputs that repeat within a tolerance', async () => {
    const tolerance = { absoluteE6: 100_000_000, relativeE6: 0 };
    expect((await check(random, { tolerance })).golden?.tolerance).toEqual(tolerance);
  });

  it('may refuse inputs whose sizes were guessed, and then goes without', async () => {
    const { golden, notices } = await check(needsWidth);
    expect(golden).toBeUndefined();
    expect(notices).toEqual([expect.stringContaining('--golden FILE')]);
  });

  it('is refused where there is nothing to try it with, with what to do', async () => {
    const missing = new BackendError('ERR_INLAY_BACKEND_MISSING', 'onnxruntime-node is not installed.');
    vi.mocked(openCheckBackend).mockReturnValueOnce({
      name: 'onnxruntime-node',
      providers: () => Promise.reject(missing),
      createSession: () => Promise.reject(missing),
      close: () => Promise.resolve(),
    });
    await expect(check(scale(2))).rejects.toMatchObject({
      code: 'ERR_INLAY_BACKEND_MISSING',
      message: expect.stringMatching(/npm install onnxruntime-node.*--no-check/) as string,
    });
  });

  it('is not run where that is not wanted', async () => {
    expect(await check(failsAtRun, { golden: 'none' })).toEqual({
      signature: expect.objectContaining({ inputs: [{ name: 'x', dtype: 'float32', shape: ['batch', 2] }] }),
      golden: undefined,
      differences: {},
      tolerances: {},
      notices: [],
    });
  });
});

describe('golden inputs that are given', () => {
  it('come from the rows of a data file', async () => {
    const rows = npy({ descr: '<f4', shape: [3, 2], data: bytesOf(Float32Array.of(1, 2, 3, 4, 5, 6)) });
    const { golden } = await check(scale(2), { golden: await fileOf('x.npy', rows) });
    expect(golden?.isMadeUp).toBe(false);
    const outputs = readGolden(golden?.bytes ?? new Uint8Array()).map((one) => [
      ...(one.outputs['y']?.data ?? []),
    ]);
    expect(outputs).toEqual([
      [2, 4],
      [6, 8],
      [10, 12],
    ]);
  });

  it('may say what they must give', async () => {
    const right = await fileOf(
      'right.json',
      JSON.stringify([{ inputs: { x: [[1, 2]] }, outputs: { y: [[2, 4]] } }]),
    );
    expect((await check(scale(2), { golden: right })).golden).toBeDefined();
    const wrong = await fileOf(
      'wrong.json',
      JSON.stringify([{ inputs: { x: [[1, 2]] }, outputs: { y: [[2, 5]] } }]),
    );
    await expect(check(scale(2), { golden: wrong })).rejects.toThrow(
      /golden input 1 is not answered as expected: output "y" differs at element 1: got 4, want 5/,
    );
  });

  it.each([
    ['of another input', [{ inputs: { z: [[1, 2]] } }], 'ERR_INLAY_FEED_MISSING'],
    ['of another shape', [{ inputs: { x: [[1, 2, 3]] } }], 'ERR_INLAY_FEED_SHAPE'],
    ['of an unknown output', [{ inputs: { x: [[1, 2]] }, outputs: { z: [1] } }], 'ERR_INLAY_OUTPUT_UNKNOWN'],
    ['in another form', { x: [1] }, 'ERR_INLAY_FEED_VALUE'],
    ['without a case', [], 'ERR_INLAY_FEED_MISSING'],
    [
      'in great number',
      Array.from({ length: 65 }, () => ({ inputs: { x: [[1, 2]] } })),
      'ERR_INLAY_FEED_VALUE',
    ],
  ])('are refused %s', async (_, content, code) => {
    const golden = await fileOf('golden.json', JSON.stringify(content));
    await expect(check(scale(2), { golden })).rejects.toMatchObject({ name: 'InputError', code });
  });

  it('are refused when they are too large for every device', async () => {
    const wide = modelOf((graph) => {
      graph.input('x', 'float32', ['batch', 'width']);
      graph.initializer('two', new Tensor('float32', [1], Float32Array.of(2)));
      graph.node('Mul', ['x', 'two'], {}, { outputs: ['y'] });
      graph.output('y', 'float32', ['batch', 'width']);
    });
    const size = 3_000_000;
    const rows = npy({ descr: '<f4', shape: [1, size], data: new Uint8Array(4 * size) });
    await expect(check(wide, { golden: await fileOf('x.npy', rows) })).rejects.toMatchObject({
      code: 'ERR_INLAY_FEED_VALUE',
      message: expect.stringContaining('every device') as string,
    });
  });

  it('are refused when they cannot be read', async () => {
    await expect(check(scale(2), { golden: '/nowhere/x.json' })).rejects.toMatchObject({
      code: 'ERR_INLAY_FEED_MISSING',
    });
    await expect(check(scale(2), { golden: '/nowhere/x.txt' })).rejects.toThrow(RangeError);
  });
});

describe('a variant', () => {
  it('is taken when its answers are near, and devices get a tolerance that lets it pass', async () => {
    const { golden, differences, tolerances } = await check(scale(2), { variants: { int8: scale(2.04) } });
    expect(differences['int8']).toBeCloseTo(0.02, 3);
    const { tolerance } = golden ?? {};
    expect(tolerance?.relativeE6).toBeGreaterThanOrEqual(20_000);
    expect(tolerances).toEqual({ fp32: { absoluteE6: 100, relativeE6: 1000 }, int8: tolerance });
  });

  it('is refused when its answers are others, with the difference', async () => {
    await expect(check(scale(2), { variants: { int8: scale(2.5) } })).rejects.toMatchObject({
      code: 'ERR_INLAY_MODEL_UNSUPPORTED',
      message: expect.stringMatching(/\(int8\) .*output "y" is off by 25 %, allowed are 5 %/) as string,
    });
    const tolerance = { absoluteE6: 0, relativeE6: 10_000 };
    await expect(check(scale(2), { variants: { int8: scale(2.04) }, tolerance })).rejects.toThrow(
      /its answer is not that of fp32: output "y" differs at element 0/,
    );
  });

  it('is refused when its signature is another', async () => {
    await expect(check(scale(2), { variants: { int8: otherSignature } })).rejects.toThrow(
      /\(int8\) is not published: its input is x: int64 \[batch, 2\], not x: float32 \[batch, 2\]\./,
    );
  });

  it('is loaded, but not compared, where there are no golden outputs', async () => {
    const { notices } = await check(random, { variants: { int8: scale(2) } });
    expect(notices.at(-1)).toContain('The variants were not compared');
    await expect(check(random, { variants: { int8: unknownOperator } })).rejects.toThrow('does not load');
  });
});
