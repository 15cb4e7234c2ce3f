import * as fs from 'node:fs/promises';
import { basename, resolve } from 'node:path';
import type { Command } from 'commander';
import { isInlayError } from '../core/errors.ts';
import { parseStructure } from '../onnx/lazy.ts';
import { allTensors } from '../onnx/map-tensors.ts';
import type { ModelProto } from '../onnx/messages.ts';
import { externalReference, isExternal } from '../onnx/tensors.ts';
import { validateStructure } from '../onnx/validate-structure.ts';
import type { Problem } from '../onnx/validate.ts';
import { openModelFolder, type ModelFolder } from '../optimize-node/model-folder.ts';
import { table, type Terminal } from './terminal.ts';

/**
 * Adds `inlay validate`.
 * @param exitWith ends the command with a code other than 0 that is no failure of the command itself.
 */
export function addValidate(program: Command, terminal: Terminal, exitWith: (code: number) => void): void {
  program
    .command('validate')
    .description('find what is wrong with a model file, external data included')
    .argument('<file>', 'ONNX model')
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExit code 1 if there is an error; warnings alone give 0.')
    .action(async (file: string, flags: { readonly json?: true }) => {
      const problems = await validateFile(resolve(terminal.cwd, file));
      const errors = problems.filter(({ severity }) => severity === 'error').length;
      if (flags.json)
        terminal.print(JSON.stringify({ errors, warnings: problems.length - errors, problems }));
      else terminal.print(describe(file, problems, errors));
      if (errors > 0) exitWith(1);
    });
}

async function validateFile(path: string): Promise<readonly Problem[]> {
  const folder = openModelFolder(path, fs);
  try {
    const location = basename(path);
    // Elements that are left where they are have a place in the file to tell.
    const structure = await parseStructure(await folder.model(), { location, leaveFromBytes: 1 });
    const files = await sizesOf(structure, folder);
    return await validateStructure(structure, { location, files, resolve: folder.resolve });
  } finally {
    await folder.close();
  }
}

/** Bytes of the files that constants are in, of those that are there. */
async function sizesOf(model: ModelProto, folder: ModelFolder): Promise<ReadonlyMap<string, number>> {
  const sizes = new Map<string, number>();
  for (const tensor of allTensors(model).filter(isExternal)) {
    try {
      const { location } = externalReference(tensor);
      if (!sizes.has(location))
        sizes.set(location, (await folder.file(location, tensor.name ?? '')).sizeBytes);
    } catch (error) {
      // What cannot be had is missing from the list, and the validation says so.
      if (!isInlayError(error)) throw error;
    }
  }
  return sizes;
}

function describe(file: string, problems: readonly Problem[], errors: number): string {
  const warnings = problems.length - errors;
  const count = (number: number, word: string): string => `${number} ${word}${number === 1 ? '' : 's'}`;
  if (problems.length === 0) return `${file} is well formed`;
  const rows = problems.map(({ severity, path, message, offset }) => [
    severity,
    offset === undefined ? path : `${path} (byte ${offset})`,
    message,
  ]);
  return [
    table(['severity', 'where', 'what'], rows),
    `${file} has ${count(errors, 'error')} and ${count(warnings, 'warning')}`,
  ].join('\n\n');
}
