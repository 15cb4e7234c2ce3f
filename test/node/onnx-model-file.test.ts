import { createHash } from 'node:crypto';
import * as nodeFs from 'node:fs/promises';
import { mkdir, mkdtemp, readdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import ort from 'onnxruntime-node';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ModelError, StoreError } from '../../src/core/errors.ts';
import { Tensor } from '../../src/core/tensor.ts';
import { createGraph } from '../../src/onnx/build.ts';
import { inspectModel } from '../../src/onnx/inspect.ts';
import type { ModelProto } from '../../src/onnx/messages.ts';
import { encodeModel, parseModel } from '../../src/onnx/model.ts';
import { toExternalFields } from '../../src/onnx/tensors.ts';
import {
  openModelFile,
  saveModelFile,
  type ModelFileSystem,
  type SavedModel,
} from '../../src/optimize-node/model-file.ts';

let folder = '';
const at = (name: string): string => join(folder, name);
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'inlay-model-file-'));
});
afterEach(() => rm(folder, { recursive: true }));

/** y = x · w, with every element of w the same. */
function model(by: number): ModelProto {
  const graph = createGraph({ name: 'product', opset: 17 });
  graph.input('x', 'float32', [1, 100]);
  graph.initializer('w', new Tensor('float32', [100, 100], new Float32Array(10_000).fill(by)));
  graph.initializer('b', new Tensor('float32', [100], new Float32Array(100).fill(0.5)));
  graph.node('Add', [graph.node('MatMul', ['x', 'w']), 'b'], {}, { outputs: 'y' });
  graph.output('y', 'float32', [1, 100]);
  return graph.toModel();
}

async function runFile(path: string): Promise<number> {
  const session = await ort.InferenceSession.create(path);
  try {
    const { y } = await session.run({
      x: new ort.Tensor('float32', new Float32Array(100).fill(1), [1, 100]),
    });
    return Number(y?.data[0]);
  } finally {
    await session.release();
  }
}

async function failureOf(work: Promise<unknown>): Promise<ModelError | StoreError> {
  const error = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (error instanceof ModelError || error instanceof StoreError) return error;
  throw new Error('No typed error was thrown.', { cause: error });
}

async function snapshot(): Promise<Record<string, string>> {
  const files: Record<string, string> = {};
  for (const name of (await readdir(folder)).sort()) {
    files[name] = createHash('sha256')
      .update(await readFile(at(name)))
      .digest('hex');
  }
  return files;
}

describe('saveModelFile', () => {
  it('writes what encodeModel gives, and tells size and hash', async () => {
    const saved = await saveModelFile(at('m.onnx'), model(2));
    const written = await readFile(at('m.onnx'));
    expect(written.equals(encodeModel(model(2)))).toBe(true);
    expect(saved).toEqual({
      path: at('m.onnx'),
      sizeBytes: written.length,
      sha256: createHash('sha256').update(written).digest('hex'),
    });
    expect(await readdir(folder)).toEqual(['m.onnx']);
  });

  it('writes external data that onnxruntime reads', async () => {
    const { data, ...saved } = await saveModelFile(at('m.onnx'), model(2), { external: 'always' });
    expect(Object.keys(await snapshot())).toEqual(['m.onnx', basename(data?.path ?? '')]);
    expect(data).toMatchObject({ sizeBytes: 40_000 });
    expect(await snapshot()).toEqual({ 'm.onnx': saved.sha256, [basename(data?.path ?? '')]: data?.sha256 });
    expect(saved.sizeBytes).toBeLessThan(1000);
    expect(await runFile(at('m.onnx'))).toBe(200.5);
  });

  it('splits by itself from a size on', async () => {
    const options = { splitFromBytes: 40_000 };
    expect((await saveModelFile(at('a.onnx'), model(1), options)).data).toBeDefined();
    expect((await saveModelFile(at('b.onnx'), model(1), { splitFromBytes: 100_000 })).data).toBeUndefined();
    expect(
      (await saveModelFile(at('c.onnx'), model(1), { ...options, external: 'never' })).data,
    ).toBeUndefined();
  });

  it('writes one file where no initializer is large', async () => {
    const graph = createGraph({ name: 'tiny', opset: 17 });
    graph.input('x', 'float32', [1]);
    graph.output(graph.node('Relu', ['x']), 'float32', [1]);
    expect(await saveModelFile(at('m.onnx'), graph.toModel(), { external: 'always' })).not.toHaveProperty(
      'data',
    );
  });

  it('takes the data of the model that it replaces away, and no other file', async () => {
    const first = await saveModelFile(at('m.onnx'), model(1), { external: 'always' });
    await writeFile(at('m.onnx.0123456789ab.data'), 'of nobody');
    const second = await saveModelFile(at('m.onnx'), model(2), { external: 'always' });
    expect(Object.keys(await snapshot())).toEqual(
      ['m.onnx', 'm.onnx.0123456789ab.data', basename(second.data?.path ?? '')].sort(),
    );
    expect(first.data?.path).not.toBe(second.data?.path);
    await saveModelFile(at('m.onnx'), model(2), { external: 'always' });
    expect(await runFile(at('m.onnx'))).toBe(200.5);
    await saveModelFile(at('m.onnx'), model(3));
    expect(Object.keys(await snapshot())).toEqual(['m.onnx', 'm.onnx.0123456789ab.data']);
  });

  it('refuses a model whose weights are elsewhere', async () => {
    await saveModelFile(at('m.onnx'), model(1), { external: 'always' });
    const { model: left } = await openModelFile(at('m.onnx'), { weights: 'leave' });
    const error = await failureOf(saveModelFile(at('n.onnx'), left));
    expect(error.code).toBe('ERR_INLAY_MODEL_UNSUPPORTED');
    expect(error.message).toContain('"w"');
  });

  it('writes pieces of which a system takes only a part at once', async () => {
    const greedy: ModelFileSystem = {
      ...nodeFs,
      open: async (path, flags) => {
        const file = await nodeFs.open(path, flags);
        return handle(file, {
          writev: (buffers, position) => {
            const [bytes = new Uint8Array(0)] = buffers;
            return file.writev([bytes.subarray(0, 777)], position);
          },
        });
      },
    };
    await saveModelFile(at('m.onnx'), model(4), { fs: greedy });
    expect((await readFile(at('m.onnx'))).equals(encodeModel(model(4)))).toBe(true);
  });
});

type Handle = Awaited<ReturnType<ModelFileSystem['open']>>;

function handle(file: nodeFs.FileHandle, changes: Partial<Handle>): Handle {
  return {
    fd: file.fd,
    stat: () => file.stat(),
    read: (...range) => file.read(...range),
    writev: (buffers, position) => file.writev(buffers, position),
    sync: () => file.sync(),
    close: () => file.close(),
    ...changes,
  };
}

/** A file system of which the nth step that changes something fails; a write has written half by then. */
function failingAt(step: number): { readonly fs: ModelFileSystem; readonly steps: string[] } {
  const steps: string[] = [];
  const count = (name: string): void => {
    steps.push(name);
    if (steps.length === step) throw Object.assign(new Error(`ENOSPC at ${name}`), { code: 'ENOSPC' });
  };
  const fs: ModelFileSystem = {
    ...nodeFs,
    open: async (path, flags) => {
      if (flags === 'wx') count('open');
      const file = await nodeFs.open(path, flags);
      return handle(file, {
        writev: async (buffers, position) => {
          if (steps.length + 1 === step) await file.writev(buffers.slice(0, 1), position);
          count('write');
          return file.writev(buffers, position);
        },
        sync: async () => {
          count('sync');
          await file.sync();
        },
        close: async () => {
          await file.close();
          if (flags === 'wx') count('close');
        },
      });
    },
    rename: async (from, to) => {
      count('rename');
      await rename(from, to);
    },
  };
  return { fs, steps };
}

describe.each([
  ['one file', 'never', ['open', 'write', 'sync', 'close', 'rename', 'sync']],
  [
    'two files',
    'always',
    [
      ...['open', 'write', 'sync', 'close', 'open', 'write', 'sync', 'close'],
      ...['rename', 'sync', 'rename', 'sync'],
    ],
  ],
] as const)('a disk that fails while %s are written', (_, external, expected) => {
  const save = (step: number): Promise<SavedModel> =>
    saveModelFile(at('m.onnx'), model(2), { external, fs: failingAt(step).fs });

  it('is asked for these steps, data first', async () => {
    const { fs, steps } = failingAt(0);
    await saveModelFile(at('m.onnx'), model(2), { external, fs });
    expect(steps).toEqual(expected);
  });

  it.each(expected.map((name, i) => [i + 1, name] as const))(
    'leaves the old model whole and no litter at step %i, %s',
    async (step) => {
      await saveModelFile(at('m.onnx'), model(1), { external });
      const before = await snapshot();
      const error = await failureOf(save(step));
      expect(error.code).toBe('ERR_INLAY_STORE_FULL');
      // Only the way of the new name to the disk is left at the last step.
      if (step < expected.length) expect(await snapshot()).toEqual(before);
      else expect(Object.keys(await snapshot()).filter((name) => name.endsWith('.part'))).toEqual([]);
      expect(await runFile(at('m.onnx'))).toBe(step < expected.length ? 100.5 : 200.5);
    },
  );
});

describe('openModelFile', () => {
  it('gives the model with all its weights, aligned', async () => {
    await saveModelFile(at('m.onnx'), model(2));
    const opened = await openModelFile(at('m.onnx'));
    expect(opened.model).toEqual(parseModel(encodeModel(model(2))));
    expect(opened).toMatchObject({ path: at('m.onnx'), files: new Map() });
    expect(opened.sizeBytes).toBe((await readFile(at('m.onnx'))).length);
    expect(opened.model.graph.initializer[0]?.rawData?.byteOffset).toBe(0);
  });

  it('gives the structure alone if asked', async () => {
    await saveModelFile(at('m.onnx'), model(2));
    const { model: left } = await openModelFile(at('m.onnx'), { weights: 'leave' });
    expect(left.graph.initializer[0]).toMatchObject({ dataLocation: 1, dims: [100, 100] });
    expect(inspectModel(left).parameters).toEqual(inspectModel(model(2)).parameters);
  });

  // Elsewhere, a file with a hole may take the space of one without.
  it.skipIf(process.platform !== 'linux')('gives the structure of a file beyond 2 GiB', async () => {
    const built = model(2);
    const sizeBytes = 3 * 2 ** 30;
    const varint = (value: number): number[] =>
      value < 128 ? [value] : [(value % 128) + 128, ...varint(Math.floor(value / 128))];
    const tensor = [0x08, ...varint(sizeBytes), 0x10, 2, 0x42, 1, 0x77, 0x4a, ...varint(sizeBytes)];
    const graph = [0x2a, ...varint(tensor.length + sizeBytes), ...tensor];
    const head = Uint8Array.of(0x3a, ...varint(graph.length + sizeBytes), ...graph);
    const tail = encodeModel({ ...built, graph: { node: [], initializer: [], input: [], output: [] } });
    // Without the empty graph, which is its only message of length 0.
    const rest = Buffer.from(tail.filter((_, i) => i !== tail.indexOf(0x3a) && i !== tail.indexOf(0x3a) + 1));
    const file = await nodeFs.open(at('m.onnx'), 'wx');
    await file.write(head, 0, head.length, 0);
    await file.write(rest, 0, rest.length, head.length + sizeBytes);
    await file.close();
    const opened = await openModelFile(at('m.onnx'), { weights: 'leave' });
    expect(opened.sizeBytes).toBe(head.length + sizeBytes + rest.length);
    expect(opened.model.opsetImport).toEqual([{ domain: '', version: 17 }]);
    expect(inspectModel(opened.model).parameters.sizeBytes).toBe(sizeBytes);
  });

  it('brings external data in', async () => {
    const { data } = await saveModelFile(at('m.onnx'), model(2), { external: 'always' });
    const opened = await openModelFile(at('m.onnx'));
    expect(encodeModel(opened.model)).toEqual(encodeModel(model(2)));
    expect([...opened.files]).toEqual([[basename(data?.path ?? ''), 40_000]]);
  });

  it('follows links of a cache of downloads, where model and data lie together', async () => {
    await mkdir(at('blobs'));
    await mkdir(at('snapshot'));
    const { data } = await saveModelFile(at('blobs/m.onnx'), model(2), { external: 'always' });
    const name = basename(data?.path ?? '');
    await rename(at(`blobs/${name}`), at('blobs/0123'));
    await symlink('../blobs/m.onnx', at('snapshot/m.onnx'));
    await symlink('../blobs/0123', at(`snapshot/${name}`));
    const { model: read } = await openModelFile(at('snapshot/m.onnx'));
    expect(encodeModel(read)).toEqual(encodeModel(model(2)));
  });

  it('says so if there is no such file, or only a folder', async () => {
    for (const path of [at('none.onnx'), folder]) {
      const error = await failureOf(openModelFile(path));
      expect(error.code).toBe('ERR_INLAY_MODEL_NOT_FOUND');
      expect(error.message).toContain(path);
    }
  });
});

describe('external data', () => {
  const save = async (location: string, offsetBytes = 0): Promise<void> => {
    const built = model(2);
    const [w = { dims: [] }, ...others] = built.graph.initializer;
    const { rawData: _, ...rest } = w;
    const external = { ...rest, ...toExternalFields({ location, offsetBytes, lengthBytes: 40_000 }) };
    const graph = { ...built.graph, initializer: [external, ...others] };
    await mkdir(at('models'), { recursive: true });
    await writeFile(at('models/m.onnx'), encodeModel({ ...built, graph }));
  };
  const failure = (): Promise<ModelError | StoreError> => failureOf(openModelFile(at('models/m.onnx')));

  it.each(['missing.data', 'folder', 'a\0b'])(
    'in %j, which is no file, is refused by the name of its constant',
    async (location) => {
      await save(location);
      await mkdir(at('models/folder'));
      const error = await failure();
      expect(error.code).toBe('ERR_INLAY_MODEL_NOT_FOUND');
      expect(error.message).toContain('"w"');
    },
  );

  it.each(['../w.data', '/etc/passwd', 'sub/../../w.data'])(
    'at %s, outside of the folder, is refused',
    async (location) => {
      await writeFile(at('w.data'), new Uint8Array(40_000));
      await save(location);
      const error = await failure();
      expect(error.code).toBe('ERR_INLAY_MODEL_INVALID');
      expect(error.message).toContain('"w"');
    },
  );

  it('behind a link out of the folder is refused', async () => {
    await save('w.data');
    await mkdir(at('elsewhere'));
    await writeFile(at('elsewhere/w.data'), new Uint8Array(40_000));
    await symlink('../elsewhere/w.data', at('models/w.data'));
    const error = await failure();
    expect(error.code).toBe('ERR_INLAY_MODEL_INVALID');
    expect(error.message).toContain('a link out of the model');
    await rm(at('models/w.data'));
    await save('sub/w.data');
    await symlink('../elsewhere', at('models/sub'));
    expect((await failure()).code).toBe('ERR_INLAY_MODEL_INVALID');
  });

  it('beyond the end of its file is refused', async () => {
    await save('w.data', 8);
    await writeFile(at('models/w.data'), new Uint8Array(40_000));
    const error = await failure();
    expect(error.code).toBe('ERR_INLAY_MODEL_TRUNCATED');
    expect(error.message).toContain('"w" goes up to byte 40008 of "w.data"');
  });

  it('in a folder below is read', async () => {
    await save('sub/w.data');
    await mkdir(at('models/sub'));
    await writeFile(at('models/sub/w.data'), new Uint8Array(40_000));
    expect((await openModelFile(at('models/m.onnx'))).files).toEqual(new Map([['sub/w.data', 40_000]]));
  });
});
