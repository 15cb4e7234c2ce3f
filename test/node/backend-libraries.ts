/** Backends in worker threads as built, and files for tests. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';
import type { Backend } from '../../src/core/backend.ts';
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
