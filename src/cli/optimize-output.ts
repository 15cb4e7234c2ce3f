/** Where commands around models write to: looked at before anything is computed. */
import { realpath } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import type { ModelProto } from '../onnx/messages.ts';
import { allNodes } from '../onnx/walk.ts';
import { isExcluded } from '../optimize/technique.ts';

/**
 * Resolves the paths of files that are to be written.
 * @param model the path of the model that is read, which nothing takes the place of.
 * @throws `RangeError` for the model itself, and for a folder that is not there.
 */
export async function outputsOf(
  cwd: string,
  model: string,
  outputs: readonly string[],
): Promise<readonly string[]> {
  const real = (path: string): Promise<string | undefined> => realpath(path).catch(() => undefined);
  const source = await real(resolve(cwd, model));
  return Promise.all(
    outputs.map(async (output) => {
      const path = resolve(cwd, output);
      if ((await real(dirname(path))) === undefined)
        throw new RangeError(`${output} cannot be written: its folder is not there.`);
      if (source !== undefined && (await real(path)) === source)
        throw new RangeError(`${output} is the model itself, which would be lost; give another output.`);
      return path;
    }),
  );
}

/** Notes on what `--exclude` names and no node of the models is called. */
export function notesOnExcluded(
  exclude: readonly (string | RegExp)[],
  models: readonly ModelProto[],
): readonly string[] {
  const nodes = models.flatMap((model) => Array.from(allNodes(model)));
  const isUsed = (pattern: string | RegExp): boolean =>
    nodes.some((node) => isExcluded(node, { exclude: [pattern] }));
  return exclude
    .filter((pattern) => !isUsed(pattern))
    .map((pattern) => `No node, and no output of one, is called ${String(pattern)}, which --exclude names.`);
}
