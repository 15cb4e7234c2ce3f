import { existsSync } from 'node:fs';
import { noDemotions } from '../core/engine/fakes.ts';
import { copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as ort from 'onnxruntime-node';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { onnxruntimeNode } from '../../src/backends/onnxruntime-node.ts';
import { Tensor } from '../../src/core/tensor.ts';
import { silentLogger } from '../../src/core/logger.ts';
import { createMemory } from '../../src/engine/memory.ts';
import type { ServingParts } from '../../src/engine/serving.ts';
import { openVariants, type VariantServing } from '../../src/engine/variants.ts';
import type { GoldenInput, VariantRules } from '../../src/engine/variants-compare.ts';
import { nodePlatform } from '../../src/platform-node.ts';
import { createMetrics } from '../../src/schedule/metrics.ts';
import { createScheduler } from '../../src/schedule/scheduler.ts';
import { openFsStore } from '../../src/stores/fs.ts';
import { runRawWith } from '../conformance/backend-models.ts';

const data = fileURLToPath(new URL('../../../shared/data/quantize/', import.meta.url));
const isThere = existsSync(data);
if (!isThere) console.log('Skipped: the quantized models in ../shared/data/quantize are not there.');

const rows = async (model: 'mlp' | 'cnn', count: number): Promise<readonly GoldenInput[]> => {
  const bytes = await readFile(`${data}${model}.evaluation.f32`);
  const values = new Float32Array(new Uint8Array(bytes).buffer);
  const shape = model === 'mlp' ? [1, 256] : [1, 3, 16, 16];
  const width = shape.reduce((size, length) => size * length);
  return Array.from({ length: count }, (_, row) => ({
    feeds: { x: new Tensor('float32', shape, values.slice(row * width, (row + 1) * width)) },
  }));
};

describe.skipIf(!isThere)('openVariants with quantized models', () => {
  const backend = onnxruntimeNode({ ort: () => import('onnxruntime-node') });
  const platform = nodePlatform();
  let folder: string;
  let open: VariantServing[] = [];
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'inlay-variants-'));
  });
  afterEach(async () => {
    await Promise.all(open.map((serving) => serving.close()));
    open = [];
  });
  afterAll(async () => {
    await backend.close();
    await rm(folder, { recursive: true, force: true });
  });

  const load = async (
    files: Readonly<Record<string, string>>,
    rules: VariantRules,
    store = 'store',
  ): Promise<VariantServing & { readonly opened: readonly string[] }> => {
    const opened: string[] = [];
    const parts: ServingParts = {
      platform,
      store: openFsStore({ directory: join(folder, store) }),
      backends: [
        {
          ...backend,
          createSession: (source, options) => {
            opened.push(source.path ?? '');
            return backend.createSession(source, options);
          },
        },
      ],
      scheduler: createScheduler({ platform }),
      memory: createMemory(undefined, () => {}),
      demotions: noDemotions,
      logger: silentLogger,
    };
    const variants = Object.entries(files).map(([name, file]) => ({
      name,
      source: async () => ({ path: file.startsWith('/') ? file : data + file }),
    }));
    const serving = await openVariants(parts, variants, rules, {
      device: 'cpu',
      placement: 'inline',
      metrics: createMetrics(),
    });
    open.push(serving);
    return Object.assign(serving, { opened });
  };
  const MLP = {
    fp32: 'mlp.onnx',
    fp16: 'mlp.float16.onnx',
    dynamic: 'mlp.dynamic.s8.channel.onnx',
    static: 'mlp.static.u8s8.channel.minmax.onnx',
    q8: 'mlp.q8.block128.asym.onnx',
    q4: 'mlp.q4.block32.asym.onnx',
  };
  const CNN = {
    fp32: 'cnn.onnx',
    fp16: 'cnn.float16.onnx',
    dynamic: 'cnn.dynamic.u8.onnx',
    static: 'cnn.static.u8s8.channel.percentile.onnx',
  };

  it.each([
    ['mlp', MLP],
    ['cnn', CNN],
  ] as const)('takes the fastest variant of the %s that is correct', async (model, files) => {
    const golden = await rows(model, 8);
    const serving = await load(files, { golden });
    const { variants } = serving.info();
    const by = Object.fromEntries(variants.map((attempt) => [attempt.variant, attempt]));
    for (const [name, { outcome, difference = 1 }] of Object.entries(by)) {
      if (name === 'q4') expect(outcome).toBe('refused');
      else {
        expect(outcome, name).not.toBe('refused');
        expect(difference, name).toBeLessThan(0.05);
      }
    }
    expect(by['fp32']?.difference).toBe(0);
    expect(by['dynamic']?.difference).toBeGreaterThan(0.001);
    const { feeds } = golden[0] as { feeds: { x: Tensor } };
    const chosen = files[serving.variant as 'fp32'];
    const expected = await runRawWith(ort, 'cpu')(await readFile(data + chosen), feeds);
    expect((await serving.run(feeds, {}, () => {}))['y']?.data).toEqual(expected['y']?.data);
  });

  it('takes 4-bit weights only when they are allowed', async () => {
    const golden = await rows('mlp', 8);
    const refused = await load({ fp32: MLP.fp32, q4: MLP.q4 }, { golden });
    expect(refused.info().variants.at(-1)?.reason).toMatch(/output "y" is off by [\d.]+ %, allowed are 5 %/);
    const allowed = await load(
      { fp32: MLP.fp32, q4: MLP.q4 },
      { golden, tolerances: { q4: { relative: 0.2 } } },
    );
    expect(allowed.info().variants.map(({ outcome }) => outcome)).not.toContain('refused');
  });

  it('opens only the chosen variant the second time, and all when a file has changed', async () => {
    const files = { fp32: join(folder, 'a.onnx'), int8: join(folder, 'b.onnx') };
    await copyFile(data + MLP.fp32, files.fp32);
    await copyFile(data + MLP.dynamic, files.int8);
    const golden = await rows('mlp', 2);
    const first = await load(files, { golden }, 'again');
    expect(new Set(first.opened).size).toBe(2);
    await first.close();
    const second = await load(files, { golden }, 'again');
    expect(second.opened).toEqual([files[first.variant as 'fp32']]);
    expect(second.info().variants).toEqual(first.info().variants);
    await second.close();
    await copyFile(data + MLP.static, files.int8);
    const third = await load(files, { golden }, 'again');
    expect(new Set(third.opened).size).toBe(2);
  });

  it('goes on without files that are absent or cut off', async () => {
    const cut = join(folder, 'cut.onnx');
    await writeFile(cut, (await readFile(data + MLP.fp32)).subarray(0, 1000));
    const serving = await load({ absent: '/nowhere/a.onnx', cut, int8: MLP.dynamic }, {});
    expect(serving.variant).toBe('int8');
    expect(serving.info().variants.map(({ variant, outcome }) => `${variant} ${outcome}`)).toEqual([
      'int8 chosen',
      'absent refused',
      'cut refused',
    ]);
  });
});
