import { resolve } from 'node:path';
import type { Command } from 'commander';
import { toHex } from '../core/bytes.ts';
import { UpdateError } from '../core/errors.ts';
import { nodePlatform } from '../platform-node.ts';
import { explainPatch, type PatchExplanation } from '../publish/delta/explain.ts';
import { sha256Hex } from '../trust/keys.ts';
import type { PatchHead } from '../update/delta/head.ts';
import { createDeltaPatcher } from '../update/delta/patcher.ts';
import { parsePatch } from '../update/delta/read-head.ts';
import { summarize } from './diff.ts';
import { formatShare } from './format.ts';
import { encodeWithProgress, startProgress } from './patch-encode.ts';
import { namePatch, readPatch, readWhole, replaceWhole, toBlob, type PatchFile } from './patch-files.ts';
import type { ProgressDisplay } from './progress.ts';
import { formatBytes, table, type Terminal } from './terminal.ts';

interface Flags {
  readonly output: string;
  readonly json?: true;
}

/** Adds `inlay patch`. */
export function addPatch(program: Command, terminal: Terminal): void {
  const path = (given: string): string => resolve(terminal.cwd, given);
  const patch = program
    .command('patch')
    .description('patches that turn one file into another, bit for bit, as devices get them');
  const output = ['-o, --output <file>', 'where to write it'] as const;

  patch
    .command('create')
    .description('make a patch')
    .argument('<base>', 'file that devices have')
    .argument('<next>', 'file that they are to have')
    .requiredOption(...output)
    .option('--json', 'print JSON, and no progress')
    .action(async (base: string, next: string, flags: Flags) => {
      const [from, to] = [await readWhole(path(base)), await readWhole(path(next))];
      const progress = startProgress(terminal, 'tensors', flags.json === true);
      const bytes = encodeWithProgress(from, to, progress);
      await replaceWhole(path(flags.output), [bytes]);
      const share = bytes.length / Math.max(1, to.length);
      const { head } = parsePatch(bytes);
      const sha256 = sha256Hex(nodePlatform(), bytes);
      const facts = { v: 1, sha256, sizeBytes: bytes.length, ...hashesOf(head), fullBytes: to.length, share };
      terminal.print(
        flags.json
          ? JSON.stringify(facts)
          : `Wrote ${flags.output}: ${formatBytes(bytes.length)}, ${formatShare(share)} of ${formatBytes(to.length)}`,
      );
    });

  patch
    .command('apply')
    .description('make a file out of another one and a patch')
    .argument('<base>', 'file that the patch starts from')
    .argument('<patch>', 'patch')
    .requiredOption(...output)
    .option('--json', 'print JSON, and no progress')
    .action(async (base: string, file: string, flags: Flags) => {
      const [from, read] = [await readWhole(path(base)), await readPatch(path(file))];
      const pieces = await applyAll(read, from, startProgress(terminal, 'MB', flags.json === true));
      const { head } = read;
      const { target } = hashesOf(head);
      if (!(await replaceWhole(path(flags.output), pieces, ({ sha256 }) => sha256 === target))) {
        throw new UpdateError(
          'ERR_INLAY_PATCH',
          `What comes out of ${file} does not have the SHA-256 that the patch names; make the patch anew.`,
        );
      }
      terminal.print(
        flags.json
          ? JSON.stringify({ v: 1, sizeBytes: head.targetBytes, sha256: target })
          : `Wrote ${flags.output}: ${formatBytes(head.targetBytes)}, sha256 ${target}`,
      );
    });

  patch
    .command('show')
    .description('tell what a patch holds')
    .argument('<patch>', 'patch')
    .option('--json', 'print JSON')
    .action(async (file: string, flags: Pick<Flags, 'json'>) => {
      const { bytes, head } = await readPatch(path(file));
      const explanation = explainPatch(bytes);
      terminal.print(
        flags.json
          ? JSON.stringify({ v: 1, ...hashesOf(head), ...explanation })
          : describe(head, explanation),
      );
    });
  patch.addHelpText('after', help);
}

/** @throws {@link UpdateError} `ERR_INLAY_PATCH` for a patch of another file, or a malformed one. */
async function applyAll(
  { path, bytes, head }: PatchFile,
  from: Uint8Array<ArrayBuffer>,
  progress: ProgressDisplay,
): Promise<readonly Uint8Array[]> {
  const base = toBlob(from);
  const expected = hashesOf(head).base;
  if (hasBase(head) && base.sha256 !== expected) {
    throw new UpdateError(
      'ERR_INLAY_PATCH',
      `The patch starts from the file with SHA-256 ${expected}, and the one that is given has ${base.sha256}; give that file.`,
    );
  }
  const pieces: Uint8Array[] = [];
  const total = head.targetBytes;
  let position = 0;
  try {
    for await (const piece of createDeltaPatcher(nodePlatform()).apply(base, toBlob(bytes), total)) {
      pieces.push(piece);
      position += piece.length;
      progress.update({ position, total, rows: position / 1e6, skipped: 0 });
    }
  } catch (error) {
    throw namePatch(path, error);
  } finally {
    progress.stop();
  }
  return pieces;
}

/** SHA-256 of the files that a patch leads from and to; zeros for none. */
function hashesOf({ base, target }: PatchHead): { readonly base: string; readonly target: string } {
  return { base: toHex(base), target: toHex(target) };
}

function describe(head: PatchHead, explanation: PatchExplanation): string {
  const { base, target } = hashesOf(head);
  const { baseBytes, targetBytes, patchBytes, ratio, hasBase: isBased } = explanation;
  const modes = summarize(explanation);
  return [
    `size    ${formatBytes(patchBytes)}, ${formatShare(ratio)} of ${formatBytes(targetBytes)}`,
    `base    ${isBased ? `${base}, ${formatBytes(baseBytes)}` : 'none'}`,
    `target  ${target}, ${formatBytes(targetBytes)}`,
    `blocks  ${head.blocks.length}, ${head.tables.length} tables`,
    ...(modes.rows.length === 0 ? [] : [`\n${table(modes.head, modes.rows)}`]),
  ].join('\n');
}

function hasBase({ base }: PatchHead): boolean {
  return base.some((byte) => byte !== 0);
}

const help = `
\`inlay publish --patch-from\` makes patches by itself; these commands are for looking at them. A file is
written only when it has the SHA-256 that the patch names.

Example:
  $ npx inlay patch create digits-1.onnx digits-2.onnx -o digits.idp
  $ npx inlay patch apply digits-1.onnx digits.idp -o digits-2.onnx`;
