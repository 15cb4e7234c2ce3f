/** The libraries themselves, for comparison, and the backends of workers as built. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';
import type { Backend, TensorMap } from '../../src/core/backend.ts';
import type { DType, DTypeStorage } from '../../src/core/dtype.ts';
import { Tensor } from '../../src/core/tensor.ts';
import { spawnNodeWorker, type NodeWorkerData } from '../../src/workers/node.ts';
import { createWorkerBackend } from '../../src/workers/realm.ts';

/** Worker threads run JavaScript, so that their script is the compiled one. */
export const workerScript: URL = new URL('../../build/worker.js', import.meta.url);

/** A backend whose sessions live in a worker thread. */
export function workerBackend(
  library: NodeWorkerData['library'],
  options: Record<string, unknown> = {},
): Backend {
  return createWorkerBackend({
    name: library,
    spawn: () => spawnNodeWorker(workerScript, { library, options }),
  });
}

/** The part of both libraries that a comparison needs. */
interface Library {
  readonly Tensor: new (type: never, data: never, dims: readonly number[]) => object;
  readonly InferenceSession: {
    create(
      bytes: Uint8Array,
      options: { executionProviders: string[] },
    ): Promise<{ run(feeds: never): Promise<object>; release(): Promise<void> }>;
  };
}

/** Runs models through a library without Inlay. */
export function runRawWith(library: Library, provider: string) {
  return async (model: Uint8Array, feeds: TensorMap): Promise<TensorMap> => {
    const session = await library.InferenceSession.create(model, { executionProviders: [provider] });
    const entries = Object.entries(feeds).map(([name, { dtype, shape, data }]) => [
      name,
      new library.Tensor(dtype as never, data as never, shape),
    ]);
    const outputs = await session.run(Object.fromEntries(entries) as never);
    await session.release();
    return Object.fromEntries(
      Object.entries(outputs as Record<string, { type: DType; dims: number[]; data: unknown }>).map(
        ([name, { type, dims, data }]) => [name, new Tensor(type, dims, data as DTypeStorage[DType])],
      ),
    );
  };
}

/** Files that are gone after the tests of the file that asks for them. */
export function temporaryFiles(): (name: string, bytes: Uint8Array) => Promise<string> {
  let directory: Promise<string> | undefined;
  afterAll(async () => {
    if (directory !== undefined) await rm(await directory, { recursive: true });
  });
  return async (name, bytes) => {
    directory ??= mkdtemp(join(tmpdir(), 'inlay-backend-'));
    const path = join(await directory, name);
    await writeFile(path, bytes);
    return path;
  };
}
