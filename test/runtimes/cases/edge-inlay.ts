/** `inlay` as an edge runtime gets it: created in the global scope, used in requests, under a clock that may stand still. */
import wasmModule from 'onnxruntime-web/ort-wasm-simd-threaded.wasm';
import { describe, expect, it, onTestFinished } from 'vitest';
import digits from '../../../examples/digits/digits-1.1.0.onnx';
import { createInlay, type EdgeInlayOptions } from '../../../src/edge.ts';
import type { Inlay } from '../../../src/engine/inlay.ts';
import { edgePlatform } from '../../../src/platform-edge.ts';
import { codeOf } from '../../conformance/store.ts';
import { floats } from '../../conformance/backend-models.ts';

/** Creating one neither loads nor starts anything, which the global scope would refuse. */
const global = createInlay({ wasmModule });

function create(options: Partial<EdgeInlayOptions> = {}): Inlay {
  const inlay = createInlay({ wasmModule, ...options });
  onTestFinished(() => inlay.close());
  return inlay;
}

const image = (seed: number): Float32Array => floats(784, seed);

describe('inlay on an edge runtime', () => {
  it('may be created in the global scope', async () => {
    const model = await global.load(digits.slice(0));
    expect((await model.run({ image: image(1) }))['logits']?.shape).toEqual([1, 10]);
    await global.close();
  });

  it('runs where it is called, on WebAssembly, and says so', async () => {
    const inlay = create();
    await inlay.load(digits.slice(0));
    const { runtime, models } = inlay.info();
    expect(runtime).toBe(navigator.userAgent === 'Cloudflare-Workers' ? 'workerd' : 'edge');
    expect(models[0]).toMatchObject({ backend: 'onnxruntime-web', provider: 'wasm', placement: 'inline' });
  });

  for (const clock of ['the clock of the runtime', 'a clock that stands still']) {
    const options: Partial<EdgeInlayOptions> =
      clock === 'the clock of the runtime'
        ? {}
        : { platform: { ...edgePlatform(), now: () => 1_000_000, monotonicMs: () => 1000 } };

    it(`gives calls at the same time what each gives alone, by ${clock}`, async () => {
      const model = await create(options).load(digits.slice(0));
      for (let round = 0; round < 3; round += 1) {
        const together = await Promise.all(
          Array.from({ length: 64 }, (_, seed) => model.run({ image: image(seed) })),
        );
        for (const seed of [0, 17, 63]) {
          const alone = (await model.run({ image: image(seed) }))['logits']?.data as Float32Array;
          const logits = together[seed]?.['logits']?.data as Float32Array;
          expect(logits).toHaveLength(10);
          for (const [at, logit] of alone.entries()) expect(logits[at]).toBeCloseTo(logit, 3);
        }
      }
      const { calls, batchSize } = model.stats();
      expect(calls).toMatchObject({ accepted: 3 * (64 + 3), answered: 3 * (64 + 3) });
      expect(batchSize.max).toBeGreaterThan(1);
    });

    it(`keeps deadlines and aborts, by ${clock}`, async () => {
      const model = await create(options).load(digits.slice(0));
      const reason = new Error('Not wanted any more.');
      await expect(model.run({ image: image(1) }, { signal: AbortSignal.abort(reason) })).rejects.toBe(
        reason,
      );
      const controller = new AbortController();
      const waiting = model.run({ image: image(1) }, { signal: controller.signal });
      controller.abort(reason);
      await expect(waiting).rejects.toBe(reason);
      const answers = await Promise.allSettled(
        Array.from({ length: 8 }, () => model.run({ image: image(1) }, { deadlineMs: 10_000 })),
      );
      expect(answers.map(({ status }) => status)).toEqual(Array.from({ length: 8 }, () => 'fulfilled'));
    });

    it(`runs over a sequence with back-pressure, by ${clock}`, async () => {
      const model = await create(options).load(digits.slice(0));
      let count = 0;
      const feeds = Array.from({ length: 20 }, (_, seed) => ({ image: image(seed) }));
      for await (const outputs of model.runAll(feeds, { concurrency: 4 })) {
        expect(outputs['logits']?.shape).toEqual([1, 10]);
        count += 1;
      }
      expect(count).toBe(20);
    });
  }

  it('refuses calls after it was closed', async () => {
    const inlay = create();
    const model = await inlay.load(digits.slice(0));
    await inlay.close();
    expect(await codeOf(model.run({ image: image(1) }))).toBe('ERR_INLAY_CLOSED');
  });

  it('refuses bytes that are no model, and goes on', async () => {
    const inlay = create();
    expect(await codeOf(inlay.load(new Uint8Array(100)))).toMatch(/^ERR_INLAY_MODEL_/);
    await inlay.load(digits.slice(0));
  });

  it('says what it needs', () => {
    const wrong: object = { wasmModule: 'a.wasm' };
    expect(() => createInlay({})).toThrow(/ort-wasm-simd-threaded\.wasm/);
    expect(() => createInlay(wrong)).toThrow(/got string/);
    expect(() => createInlay({ wasmModule, sync: {} } as EdgeInlayOptions)).toThrow(/sync/);
  });
});
