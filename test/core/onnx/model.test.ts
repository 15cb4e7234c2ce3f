import { describe, expect, it } from 'vitest';
import fc from 'fast-check';
import { toUtf8 } from '../../../src/core/bytes.ts';
import { ModelError } from '../../../src/core/errors.ts';
import { inspectModel } from '../../../src/onnx/inspect.ts';
import { encodeModel, parseModel } from '../../../src/onnx/model.ts';
import type { ModelProto } from '../../../src/onnx/messages.ts';
import { signatureOf } from '../../../src/onnx/signature.ts';
import { fromTensorProto } from '../../../src/onnx/tensors.ts';
import { allGraphs } from '../../../src/onnx/walk.ts';
import { sampleModel } from './sample.ts';

const sample = encodeModel(sampleModel());

function errorOf(run: () => unknown): ModelError | undefined {
  try {
    run();
  } catch (error) {
    if (error instanceof ModelError) return error;
    throw error;
  }
  return undefined;
}

/** Reads everything that this folder can read from a model. */
function readAll(bytes: Uint8Array): void {
  const model = parseModel(bytes);
  const rewritten = parseModel(encodeModel(model));
  for (const read of [signatureOf, inspectModel, readTensors]) {
    errorOf(() => read(model));
    errorOf(() => read(rewritten));
  }
}

function readTensors(model: ModelProto): void {
  for (const graph of allGraphs(model)) for (const tensor of graph.initializer) fromTensorProto(tensor);
}

describe('parseModel', () => {
  it('reads back what encodeModel wrote', () => {
    const model = parseModel(sample);
    expect(encodeModel(model)).toEqual(sample);
    expect(model.graph.initializer.map(({ name }) => name)).toEqual(['weight', 'bias16']);
    expect(model.producerVersion).toBe('1.2.3');
  });

  it('reads a view into a larger buffer', () => {
    const larger = new Uint8Array(sample.length + 20);
    larger.set(sample, 7);
    expect(parseModel(larger.subarray(7, 7 + sample.length))).toEqual(parseModel(sample));
  });

  it('refuses every strict prefix of a model with a typed error that names a byte', () => {
    for (let length = 0; length < sample.length; length += 1) {
      const error = errorOf(() => parseModel(sample.subarray(0, length)));
      expect(error?.code, `prefix of ${length}`).toMatch(/^ERR_INLAY_MODEL_(TRUNCATED|INVALID)$/);
      expect(error?.details['offset']).toBeLessThanOrEqual(length);
    }
  });

  it('calls a model that is cut inside its graph truncated', () => {
    for (const share of [0.3, 0.5, 0.9]) {
      const error = errorOf(() => parseModel(sample.subarray(0, Math.floor(sample.length * share))));
      expect(error?.code).toBe('ERR_INLAY_MODEL_TRUNCATED');
    }
  });

  it('says so if the file is empty', () => {
    expect(errorOf(() => parseModel(new Uint8Array(0)))?.message).toBe('The model file is empty.');
  });

  it.each([
    ['a web page', toUtf8('<!DOCTYPE html><html></html>'), '3c 21 44 4f 43 54 59 50'],
    ['a PNG', Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0, 0), '89 50 4e 47 0d 0a 1a 0a'],
    ['a gzip file', Uint8Array.of(0x1f, 0x8b, 0x08, 0, 0), '1f 8b 08 00 00'],
    ['a Git LFS pointer', toUtf8('version https://git-lfs.github.com/spec/v1'), '76 65 72 73 69 6f 6e 20'],
  ])('tells %s by its first bytes', (_, bytes, head) => {
    const error = errorOf(() => parseModel(bytes));
    expect(error?.code).toBe('ERR_INLAY_MODEL_INVALID');
    expect(error?.message).toContain(`starts with the bytes ${head}.`);
  });

  it('names the part that a model lacks', () => {
    expect(errorOf(() => parseModel(Uint8Array.of(0x08, 8)))?.message).toContain('no graph');
    expect(errorOf(() => parseModel(Uint8Array.of(0x08, 8, 0x3a, 0)))?.message).toContain('no opset_import');
    expect(errorOf(() => parseModel(Uint8Array.of(0x3a, 0, 0x42, 2, 0x10, 9)))?.message).toContain(
      'no ir_version',
    );
  });

  it('needs no operator sets before IR version 3, which introduced them', () => {
    expect(parseModel(Uint8Array.of(0x08, 2, 0x3a, 0)).opsetImport).toEqual([]);
  });

  it('takes bytes only', () => {
    expect(() => parseModel(JSON.parse('"model.onnx"'))).toThrow(TypeError);
  });

  it('throws nothing but ModelError for random bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        errorOf(() => readAll(bytes));
      }),
      { numRuns: 2000 },
    );
  });

  it('throws nothing but ModelError for any single corrupt byte', () => {
    const seen = { errors: 0, models: 0 };
    fc.assert(
      fc.property(fc.nat({ max: sample.length - 1 }), fc.integer({ min: 1, max: 255 }), (at, flip) => {
        const corrupt = sample.slice();
        corrupt[at] = (corrupt[at] as number) ^ flip;
        seen[errorOf(() => readAll(corrupt)) ? 'errors' : 'models'] += 1;
      }),
      { numRuns: 3000 },
    );
    expect(seen.errors).toBeGreaterThan(0);
    expect(seen.models).toBeGreaterThan(0);
  });

  it('throws nothing but ModelError where parts are cut out or doubled', () => {
    const span = fc.tuple(fc.nat({ max: sample.length }), fc.nat({ max: sample.length }));
    fc.assert(
      fc.property(span, fc.boolean(), ([a, b], isDoubled) => {
        const [from, to] = a < b ? [a, b] : [b, a];
        const spliced = [
          ...sample.subarray(0, isDoubled ? to : from),
          ...sample.subarray(isDoubled ? from : to),
        ];
        errorOf(() => readAll(Uint8Array.from(spliced)));
      }),
      { numRuns: 500 },
    );
  });
});
