import { resolve } from 'node:path';
import type { Command } from 'commander';
import { toHex } from '../core/bytes.ts';
import { UpdateError } from '../core/errors.ts';
import { nodePlatform } from '../platform-node.ts';
import { encodePatch } from '../publish/delta/encode.ts';
import { explainPatch, type PatchExplanation } from '../publish/delta/explain.ts';
import type { PatchHead } from '../update/delta/head.ts';
import { createDeltaPatcher } from '../update/delta/patcher.ts';
import { parsePatch } from '../update/delta/read-head.ts';
import { summarize } from './diff.ts';
import { formatShare } from './format.ts';
import { readWhole, replaceWhole, toBlob } from './patch-files.ts';
import { createProgress } from './progress.ts';
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
    .option('--json', 'print JSON')
    .action(async (base: string, next: string, flags: Flags) => {
      const [from, to] = [await readWhole(path(base)), await readWhole(path(next))];
      if (!flags.json) terminal.printError('encoding …');
      const bytes = encodePatch(from, to, { platform: nodePlatform() });
      await replaceWhole(path(flags.output), [bytes]);
      const share = bytes.length / Math.max(1, to.length);
      const facts = { sizeBytes: bytes.length, fullBytes: to.length, share };
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
      const [from, bytes] = [await readWhole(path(base)), await readWhole(path(file))];
      const { head } = parsePatch(bytes);
      const pieces = await applyAll(head, from, bytes, flags.json ? undefined : terminal);
      const target = toHex(head.target);
      if (!(await replaceWhole(path(flags.output), pieces, ({ sha256 }) => sha256 === target))) {
        throw new UpdateError(
          'ERR_INLAY_PATCH',
          `What comes out of ${file} does not have the SHA-256 that the patch names; make the patch anew.`,
        );
      }
      terminal.print(
        flags.json
          ? JSON.stringify({ sizeBytes: head.targetBytes, sha256: target })
          : `Wrote ${flags.output}: ${formatBytes(head.targetBytes)}, sha256 ${target}`,
      );
    });

  patch
    .command('show')
    .description('tell what a patch holds')
    .argument('<patch>', 'patch')
    .option('--json', 'print JSON')
    .action(async (file: string, flags: Pick<Flags, 'json'>) => {
      const bytes = await readWhole(path(file));
      const { head } = parsePatch(bytes);
      const explanation = explainPatch(bytes);
      const hashes = { base: toHex(head.base), target: toHex(head.target) };
      terminal.print(
        flags.json ? JSON.stringify({ v: 1, ...hashes, ...explanation }) : describe(head, explanation),
      );
    });
  patch.addHelpText('after', help);
}

/** @throws {@link UpdateError} `ERR_INLAY_PATCH` for a patch of another file, or a malformed one. */
async function applyAll(
  head: PatchHead,
  from: Uint8Array<ArrayBuffer>,
  patch: Uint8Array<ArrayBuffer>,
  terminal: Terminal | undefined,
): Promise<readonly Uint8Array[]> {
  const base = toBlob(from);
  if (hasBase(head) && base.sha256 !== toHex(head.base)) {
    throw new UpdateError(
      'ERR_INLAY_PATCH',
      `The patch starts from the file with SHA-256 ${toHex(head.base)}, and the one that is given has ${base.sha256}; give that file.`,
    );
  }
  const platform = nodePlatform();
  const progress =
    terminal &&
    createProgress({
      terminal,
      unit: 'MB',
      bar: process.stderr.isTTY ? process.stderr : undefined,
      monotonicMs: () => platform.monotonicMs(),
    });
  const pieces: Uint8Array[] = [];
  let doneBytes = 0;
  try {
    for await (const piece of createDeltaPatcher(platform).apply(base, toBlob(patch), head.targetBytes)) {
      pieces.push(piece);
      doneBytes += piece.length;
      progress?.update({ position: doneBytes, total: head.targetBytes, rows: doneBytes / 1e6, skipped: 0 });
    }
  } finally {
    progress?.stop();
  }
  return pieces;
}

function describe({ base, target, tables, blocks }: PatchHead, explanation: PatchExplanation): string {
  const { baseBytes, targetBytes, patchBytes, ratio, hasBase: isBased } = explanation;
  const modes = summarize(explanation);
  return [
    `size    ${formatBytes(patchBytes)}, ${formatShare(ratio)} of ${formatBytes(targetBytes)}`,
    `base    ${isBased ? `${toHex(base)}, ${formatBytes(baseBytes)}` : 'none'}`,
    `target  ${toHex(target)}, ${formatBytes(targetBytes)}`,
    `blocks  ${blocks.length}, ${tables.length} tables`,
    `\n${table(modes.head, modes.rows)}`,
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
