import { resolve } from 'node:path';
import { Option } from 'commander';
import { auditModel, type Audit } from '../optimize/audit.ts';
import type { OptimizationLevel } from '../optimize/runtime.ts';
import { openModelFile } from '../optimize-node/model-file.ts';
import { openTarget } from '../optimize-node/target.ts';
import { table, type Terminal } from './terminal.ts';

/** Flags of `inlay audit <model>`. */
export interface AuditModelFlags {
  readonly level: OptimizationLevel;
  readonly json?: true;
}

/** Exit code when weights are dequantized at every run. */
const DEQUANTIZES = 2;

/** How far the model is optimised before it is looked at. */
export function levelOption(): Option {
  return new Option('--level <level>', 'of a model: how far onnxruntime rewrites the graph')
    .choices(['disabled', 'basic', 'extended', 'all'] satisfies readonly OptimizationLevel[])
    .default('all');
}

export const auditModelHelp = `
Exit codes: 1, something failed; 2, a weight of the model is dequantized at every run; 64, wrong
command line.

Example:
  $ npx inlay audit model.int8.onnx`;

/** Prints what onnxruntime does not fuse in a model file. */
export async function auditModelFile(
  file: string,
  { level, json }: AuditModelFlags,
  terminal: Terminal,
  exitWith: (code: number) => void,
): Promise<void> {
  const { model } = await openModelFile(resolve(terminal.cwd, file));
  const runtime = await openTarget('node-cpu');
  try {
    const audit = await auditModel(model, runtime, { level });
    terminal.print(json ? JSON.stringify(audit) : describe(audit, runtime.description));
    if (audit.findings.some(({ kind }) => kind === 'weight-dequantize')) exitWith(DEQUANTIZES);
  } finally {
    await runtime.close();
  }
}

function describe({ operators, findings }: Audit, description: string): string {
  const counts = Object.entries(operators).map(([operator, count]) => `${count} ${operator}`);
  const runs = `Runs as ${counts.join(', ')} (${description}).`;
  if (findings.length === 0) return `${runs}\n\nEvery node fused that could.`;
  const rows = findings.map(({ node, op, isSlow, reason, remedy }) => [
    node,
    op,
    isSlow ? 'slow' : '',
    `${reason}; ${remedy}`,
  ]);
  const slow = findings.filter(({ isSlow }) => isSlow).length;
  const count = `${findings.length} ${findings.length === 1 ? 'node' : 'nodes'} did not fuse, ${slow} of them to the harm of speed.`;
  return [runs, table(['node', 'operator', '', 'what happens, and what to do'], rows), count].join('\n\n');
}
