import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ModelError } from '../../src/core/errors.ts';
import { Tensor, tensorFrom } from '../../src/core/tensor.ts';
import { createGraph } from '../../src/onnx/build.ts';
import { moveExternal } from '../../src/onnx/external.ts';
import { inspectModel } from '../../src/onnx/inspect.ts';
import { parseStructure } from '../../src/onnx/lazy.ts';
import { allTensors } from '../../src/onnx/map-tensors.ts';
import { encodeModel, parseModel } from '../../src/onnx/model.ts';
import { encodePieces } from '../../src/onnx/pieces.ts';
import { signatureOf } from '../../src/onnx/signature.ts';
import { fromTensorProto } from '../../src/onnx/tensors.ts';
import { validateModel } from '../../src/onnx/validate.ts';
import { sampleModel } from '../core/onnx/sample.ts';

const MUTATIONS = 100_000;

/** Numbers in [0, 2^32) that are the same at each run. */
function createRandom(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    // The low bits of such a generator repeat soon.
    return Math.floor((state / 2 ** 32) * below);
  };
}

function perceptron(): Uint8Array {
  const graph = createGraph({ name: 'p', opset: 17 });
  graph.input('x', 'float32', ['n', 2]);
  graph.initializer('w', new Tensor('float32', [2, 3], Float32Array.of(1, 2, 3, 4, 5, 6)));
  graph.node(
    'Gemm',
    ['x', 'w', graph.constant('b', tensorFrom('float32', [1, 2, 3]))],
    { alpha: 2 },
    { outputs: 'y' },
  );
  graph.output('y', 'float32', ['n', 3]);
  return encodeModel(graph.toModel());
}

const samples: readonly Uint8Array[] = [
  perceptron(),
  encodeModel(sampleModel()),
  encodeModel(moveExternal(parseModel(perceptron()), { fromBytes: 1 }).toModel('w.data')),
];

type Mutation = (bytes: Uint8Array, random: (below: number) => number) => Uint8Array;

const mutations: Readonly<Record<string, Mutation>> = {
  'a flipped bit': (bytes, random) => {
    const at = random(bytes.length);
    bytes[at] = (bytes[at] ?? 0) ^ (1 << random(8));
    return bytes;
  },
  'a few bytes of any value': (bytes, random) => {
    for (let i = random(4); i >= 0; i -= 1) bytes[random(bytes.length)] = random(256);
    return bytes;
  },
  'a cut end': (bytes, random) => bytes.subarray(0, random(bytes.length)),
  'a part in another place': (bytes, random) => {
    const at = random(bytes.length);
    bytes.copyWithin(random(bytes.length), at, at + random(40));
    return bytes;
  },
  'a part left out': (bytes, random) => {
    const at = random(bytes.length);
    const from = at + random(20);
    bytes.copyWithin(at, from);
    return bytes.subarray(0, Math.max(at, bytes.length - from + at));
  },
  // Lengths are the short numbers behind tags: a huge one, or one that is a little off.
  'another length': (bytes, random) => {
    const at = random(bytes.length);
    if (random(2) === 0) bytes[at] = (bytes[at] ?? 0) + random(9) - 4;
    else bytes.fill(0xff, at, at + 1 + random(9));
    return bytes;
  },
};

/** Everything that reads a model, or `undefined` if it is none. */
function readAll(bytes: Uint8Array): number | undefined {
  const model = attempt(() => parseModel(bytes));
  if (model === undefined) return undefined;
  attempt(() => inspectModel(model));
  attempt(() => signatureOf(model));
  attempt(() => validateModel(model));
  attempt(() => allTensors(model).map((tensor) => fromTensorProto(tensor)));
  return encodePieces(model).reduce((sum, { length }) => sum + length, 0);
}

function attempt<Value>(read: () => Value): Value | undefined {
  try {
    return read();
  } catch (error) {
    if (error instanceof ModelError && error.code.startsWith('ERR_INLAY_MODEL_')) return undefined;
    throw error;
  }
}

describe('a model with', () => {
  const { stackTraceLimit } = Error;
  beforeAll(() => {
    // Most of the time would go into stacks that nobody reads.
    Error.stackTraceLimit = 0;
  });
  afterAll(() => {
    Error.stackTraceLimit = stackTraceLimit;
  });

  const names = Object.keys(mutations);
  const runs = Math.ceil(MUTATIONS / names.length);
  it.each(names)(
    '%s is refused with a typed error, or is read and takes no more bytes than it had',
    (name) => {
      const random = createRandom(names.indexOf(name) + 1);
      const mutate = mutations[name] as Mutation;
      const seen = { models: 0, errors: 0 };
      for (let run = 0; run < runs; run += 1) {
        const bytes = mutate((samples[run % 20 === 0 ? 1 : (run % 2) * 2] as Uint8Array).slice(), random);
        const sizeBytes = readAll(bytes);
        seen[sizeBytes === undefined ? 'errors' : 'models'] += 1;
        // An int32 of 5 bytes is written with 10.
        if ((sizeBytes ?? 0) > 2 * bytes.length) expect.fail(`${bytes.length} bytes became ${sizeBytes}.`);
      }
      expect(seen.models + seen.errors).toBe(runs);
      expect(seen.errors).toBeGreaterThan(runs / 20);
    },
  );

  it.each(names)('%s has the same structure, or error, when its weights are left', async (name) => {
    const random = createRandom(names.indexOf(name) + 7);
    const mutate = mutations[name] as Mutation;
    for (let run = 0; run < 300; run += 1) {
      const bytes = mutate((samples[run % 2] as Uint8Array).slice(), random);
      const source = {
        sizeBytes: bytes.length,
        read: async (offset: number, length: number) => bytes.slice(offset, offset + length),
      };
      const eager = attempt(() => parseModel(bytes));
      const lazy = await parseStructure(source, { location: 'm.onnx', leaveFromBytes: 100 }).catch(
        (error: unknown) =>
          attempt(() => {
            throw error;
          }),
      );
      expect(lazy === undefined, `run ${run}`).toBe(eager === undefined);
      if (eager !== undefined && lazy !== undefined)
        expect(attempt(() => signatureOf(lazy))).toEqual(attempt(() => signatureOf(eager)));
    }
  });
});
