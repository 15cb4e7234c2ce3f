/** A file system that numbers every step which changes something, and does what it is told at one of them. */
import * as nodeFs from 'node:fs/promises';
import type { FileSystem } from '../../src/stores/fs.ts';

/**
 * What happens at a step: `before` or `after` it, everything ends (`end` does not come back); `torn`: after half of a
 * write, and otherwise after the step; an errno: it fails, and a write has written half.
 */
export type Fate = 'before' | 'after' | 'torn' | `E${string}` | undefined;

export interface StepFs extends FileSystem {
  /** Names of the steps so far. */
  readonly steps: readonly string[];
}

/** Steps of mkdir (of what is not there), open for writing, write, truncate, fsync, rename and unlink count; reading does not. */
export function steppedFs(
  fateOf: (step: number, name: string, path: string) => Fate,
  end: () => void,
): StepFs {
  const steps: string[] = [];
  const at = async <Result>(
    name: string,
    path: string,
    task: () => Promise<Result>,
    half: () => Promise<unknown> = task,
  ): Promise<Result> => {
    steps.push(name);
    const fate = fateOf(steps.length, name, path);
    if (fate === undefined) return task();
    if (fate === 'before' || fate === 'after' || fate === 'torn') {
      if (fate === 'after') await task();
      if (fate === 'torn') await half();
      end();
      return new Promise(() => {});
    }
    if (half !== task) await half();
    throw Object.assign(new Error(`${fate} at ${name}`), { code: fate });
  };
  const fs: StepFs = {
    ...nodeFs,
    steps,
    mkdir: async (path) => {
      // Where the folder is there, nothing changes.
      const isThere = await nodeFs.stat(path).then(
        () => true,
        () => false,
      );
      await (isThere ? nodeFs.mkdir(path) : at('mkdir', path, () => nodeFs.mkdir(path)));
    },
    open: async (path, flags) => {
      const file = await (flags === 'wx'
        ? at('open', path, () => nodeFs.open(path, flags))
        : nodeFs.open(path, flags));
      return {
        writeFile: (bytes) =>
          at(
            'write',
            path,
            () => file.writeFile(bytes),
            () => file.writeFile(bytes.subarray(0, bytes.length >> 1)),
          ),
        read: (...range) => file.read(...range),
        write: (bytes, offset, length, position) =>
          at(
            'write',
            path,
            () => file.write(bytes, offset, length, position),
            () => file.write(bytes, offset, length >> 1, position),
          ),
        truncate: (sizeBytes) => at('truncate', path, () => file.truncate(sizeBytes)),
        sync: () => at('fsync', path, () => file.sync()),
        close: () => file.close(),
      };
    },
    rename: (from, to) => at('rename', to, () => nodeFs.rename(from, to)),
    unlink: (path) => at('unlink', path, () => nodeFs.unlink(path)),
  };
  return fs;
}
