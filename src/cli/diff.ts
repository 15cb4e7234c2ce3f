import { resolve } from 'node:path';
import type { Command } from 'commander';
import { toUtf8 } from '../core/bytes.ts';
import type { FactTable } from '../optimize/report-facts.ts';
import { explainPatch, type ExplainedSegment, type PatchExplanation } from '../publish/delta/explain.ts';
import { segmentsOf } from '../publish/delta/spans.ts';
import { isZip } from '../publish/delta/spans-zip.ts';
import { worthPercent } from '../publish/patches.ts';
import { toDiffPage } from './diff-page.ts';
import { formatShare, none } from './format.ts';
import { encodeWithProgress, startProgress } from './patch-encode.ts';
import { readWhole, replaceWhole } from './patch-files.ts';
import { formatBytes, table, type Terminal } from './terminal.ts';

interface Flags {
  readonly explain?: true;
  readonly html?: string;
  readonly json?: true;
}

/** Adds `inlay diff`. */
export function addDiff(program: Command, terminal: Terminal): void {
  const path = (given: string): string => resolve(terminal.cwd, given);
  program
    .command('diff')
    .description('tell how many bytes an update from one model file to another takes, and what they are for')
    .argument('<base>', 'file that devices have')
    .argument('<next>', 'file that they are to have')
    .option('--explain', 'tell it for every tensor that changed')
    .option('--html <file>', 'write a report with plots')
    .option('--json', 'print JSON, and no progress')
    .addHelpText('after', help)
    .action(async (base: string, next: string, flags: Flags) => {
      const [from, to] = [await readWhole(path(base)), await readWhole(path(next))];
      const patch = encodeWithProgress(from, to, startProgress(terminal, 'tensors', flags.json === true));
      const explanation = explainPatch(patch, to);
      const summary = [...describeSummary(explanation), ...(isOpaque(to) ? [opaqueNote] : [])];
      if (flags.html !== undefined) {
        const tables = [summarize(explanation), explainRows(explanation)];
        const page = toDiffPage(explanation, summary, tables);
        await replaceWhole(path(flags.html), [toUtf8(page)]);
      }
      terminal.print(
        flags.json ? JSON.stringify({ v: 1, ...explanation }) : describe(explanation, summary, flags),
      );
    });
}

type Summary = readonly (readonly [label: string, value: string])[];

const opaqueNote = [
  'note',
  'its weights are compressed in a ZIP archive, where no patch sees them; store them (zip -0)',
] as const;

/** Whether a file is an archive in which no tensor is seen. */
function isOpaque(file: Uint8Array): boolean {
  return isZip(file) && segmentsOf(file).length === 0;
}

function describe(explanation: PatchExplanation, summary: Summary, { explain, html }: Flags): string {
  const { head, rows } = explainRows(explanation);
  const modes = summarize(explanation);
  return [
    ...summary.map(([label, value]) => `${label.padEnd(9)}  ${value}`),
    ...(modes.rows.length === 0 ? [] : [`\n${table(modes.head, modes.rows)}`]),
    ...(explain && rows.length > 0 ? [`\n${table(head, rows)}`] : []),
    ...(html === undefined ? [] : [`\nWrote ${html}`]),
  ].join('\n');
}

/** The figures of the whole patch. */
function describeSummary({ ratio, baseBytes, targetBytes, patchBytes, segments }: PatchExplanation): Summary {
  const changed = segments.filter(isChanged);
  return [
    ['patch', `${formatBytes(patchBytes)}${targetBytes === 0 ? '' : `, ${formatShare(ratio)} of the file`}`],
    ['base', formatBytes(baseBytes)],
    ['file', formatBytes(targetBytes)],
    ['tensors', `${changed.length.toLocaleString('en')} changed`],
    ...(targetBytes === 0
      ? [['note', 'the new file is empty; export it anew'] as const]
      : 100 * ratio > worthPercent.patch
        ? [['note', 'the patch saves so little that it would not be published'] as const]
        : []),
  ];
}

/** A table by the way in which parts of the file come about. */
export function summarize({ segments }: PatchExplanation): FactTable {
  const modes = new Map<string, { count: number; sizeBytes: number; patchBytes: number }>();
  for (const { mode, sizeBytes, patchBytes } of segments) {
    const sum = modes.get(mode) ?? { count: 0, sizeBytes: 0, patchBytes: 0 };
    sum.count += 1;
    sum.sizeBytes += sizeBytes;
    sum.patchBytes += patchBytes;
    modes.set(mode, sum);
  }
  return {
    title: 'How the file comes about',
    head: ['mode', 'parts', 'of the file', 'of the patch'],
    rows: Array.from(modes, ([mode, { count, sizeBytes, patchBytes }]) => [
      mode,
      String(count),
      formatBytes(sizeBytes),
      formatBytes(patchBytes),
    ]),
  };
}

/** A table of the tensors that changed, the costly ones first. */
function explainRows({ segments }: PatchExplanation): FactTable {
  const changed = segments.filter(isChanged).sort((a, b) => b.patchBytes - a.patchBytes);
  return {
    title: 'Tensors that changed',
    head: ['tensor', 'numbers', 'mode', 'bits each', 'bytes', 'share', 'mostly'],
    rows: changed.map((segment) => {
      const {
        numbers,
        rows = 0,
        columns = 0,
        mode,
        predictor,
        rank,
        context,
        patchBytes,
        share,
        dominant,
      } = segment;
      const expected =
        rank === undefined ? predictor : `${predictor} ${rank} (${formatBytes(segment.parts.factors)})`;
      const how = [mode, expected === 'same' ? undefined : expected, context].filter(Boolean).join(', ');
      return [
        segment.names.join(', ') || none,
        numbers === undefined ? none : `${numbers} ${rows} × ${columns}`,
        how,
        segment.bitsPerNumber?.toFixed(2) ?? none,
        formatBytes(patchBytes),
        formatShare(share),
        dominant,
      ];
    }),
  };
}

/** Tensors that are not copied. */
function isChanged({ mode, names }: ExplainedSegment): boolean {
  return mode !== 'same' && names.length > 0;
}

const help = `
Modes: same (copied from the base), delta (differences from the base), update (whole steps of a release
that was rounded, see \`inlay publish --near\`), self (coded by themselves), grid (whole multiples of a step, see \`inlay publish --snap\`), packed and raw (bytes).
Mostly: magnitudes (how large changes are), noise (their lower bits and signs, which nothing predicts;
rounding is what helps), scales (of rows and columns), factors (of an update of low rank, as merged adapters
have it), bytes (carried as they are), framing.

Example:
  $ npx inlay diff digits-1.onnx digits-2.onnx --explain --html diff.html`;
