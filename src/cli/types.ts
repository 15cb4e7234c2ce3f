import { rename, writeFile } from 'node:fs/promises';
import { basename, resolve } from 'node:path';
import type { Command } from 'commander';
import { StoreError } from '../core/errors.ts';
import { toDeclaration, toTypeName } from '../onnx/declaration.ts';
import { parseModel } from '../onnx/model.ts';
import { signatureOf } from '../onnx/signature.ts';
import { loadModelFile } from './model-file.ts';
import type { Terminal } from './terminal.ts';

/** Adds `inlay types`. */
export function addTypes(program: Command, terminal: Terminal): void {
  program
    .command('types')
    .description("print a TypeScript declaration of a model's feeds and outputs")
    .argument('<model>', 'ONNX model')
    .option('--name <name>', 'name of the interface (default: made from the file name)')
    .option('--out <file>', 'write to a file such as digits.d.ts instead')
    .addHelpText('after', help)
    .action(async (model: string, flags: { readonly name?: string; readonly out?: string }) => {
      const path = resolve(terminal.cwd, model);
      const { bytes } = await loadModelFile(path);
      const file = basename(path);
      const declaration = toDeclaration(signatureOf(parseModel(bytes)), {
        name: flags.name ?? toTypeName(file),
        source: file,
      });
      if (flags.out === undefined) {
        terminal.print(declaration.trimEnd());
        return;
      }
      await replaceFile(resolve(terminal.cwd, flags.out), declaration);
      terminal.print(`Wrote ${flags.out}`);
    });
}

const help = `
Example:
  $ npx inlay types digits.onnx --out digits.d.ts

  import type { Digits } from './digits.d.ts';
  const model = await inlay.load<Digits>('./digits.onnx');
  const { logits } = await model.run({ image });   // names, dtypes and ranks are checked by the compiler`;

/** A compiler in watch mode never sees half a file. */
async function replaceFile(path: string, text: string): Promise<void> {
  const temporary = `${path}.${process.pid}.tmp`;
  try {
    await writeFile(temporary, text);
    await rename(temporary, path);
  } catch (cause) {
    throw new StoreError(
      'ERR_INLAY_STORE_IO',
      `The declaration cannot be written to ${path}; check the path.`,
      {
        cause,
      },
    );
  }
}
