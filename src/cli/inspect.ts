import { resolve } from 'node:path';
import { InvalidArgumentError, type Command } from 'commander';
import type { ModelReport, ParameterReport, ValueReport } from '../onnx/inspect.ts';
import { toDims } from './dims.ts';
import { costsOfFile, describeCosts } from './inspect-costs.ts';
import { inspectModelFile, loadModelFile } from './model-file.ts';
import { formatBytes, formatShape, table, type Terminal } from './terminal.ts';

/** Adds `inlay inspect`. */
export function addInspect(program: Command, terminal: Terminal): void {
  program
    .command('inspect')
    .description('show what is inside a model file')
    .argument('<file>', 'ONNX model')
    .option('--costs', 'what operators compute and tensors take; shapes through onnxruntime, if installed')
    .option('--dim <name=size>', 'size of a symbolic axis, for --costs; may be repeated', toDims, {})
    .option('--top <number>', 'rows of the longest lists of --costs', toTop, 10)
    .option('--json', 'print JSON')
    .action(async (file: string, flags: Flags) => {
      const path = resolve(terminal.cwd, file);
      const { sizeBytes, report } = await inspectModelFile(path);
      const costs = flags.costs && (await costsOfFile(path, (await loadModelFile(path)).bytes, flags.dim));
      if (flags.json) {
        terminal.print(JSON.stringify({ sizeBytes, ...report, ...(costs && { costs }) }));
        return;
      }
      terminal.print(describe(report, sizeBytes));
      if (costs) terminal.print(`\n${describeCosts(costs, flags.top)}`);
    });
}

interface Flags {
  readonly costs?: true;
  readonly dim: Readonly<Record<string, number>>;
  readonly top: number;
  readonly json?: true;
}

function toTop(text: string): number {
  const top = Number(text);
  if (Number.isInteger(top) && top >= 1) return top;
  throw new InvalidArgumentError('It is a whole number of at least 1.');
}

function describe(report: ModelReport, sizeBytes: number): string {
  const { name, producer, irVersion, parameters, nodes, functions, externalFiles, customDomains } = report;
  const facts = [
    ['model', name || '(unnamed)'],
    ['file', formatBytes(sizeBytes)],
    ['producer', [producer.name, producer.version].filter((part) => part !== '').join(' ') || '(unknown)'],
    ['IR version', String(irVersion ?? '(unknown)')],
    [
      'opsets',
      rows(report.opsets)
        .map((pair) => pair.join(' '))
        .join(', '),
    ],
    ['nodes', String(nodes)],
    ['parameters', `${parameters.elements.toLocaleString('en')} (${formatBytes(parameters.sizeBytes)})`],
    ...list('custom domains', customDomains),
    ...list('functions', functions),
    ...list('external files', externalFiles),
  ];
  const byCount = Object.entries(report.operators).sort(([, a], [, b]) => b - a);
  const sections = [
    table(['', ''], facts).replace(/^\s*\n/, ''),
    table(['input', 'dtype', 'shape'], report.inputs.map(valueRow)),
    table(['output', 'dtype', 'shape'], report.outputs.map(valueRow)),
    table(
      ['operator', 'count'],
      byCount.map(([operator, count]) => [operator, String(count)]),
    ),
    ...section(
      ['dtype', 'tensors', 'elements', 'size'],
      Object.entries(report.parametersByDtype).map(parameterRow),
    ),
    ...section(['metadata', 'value'], rows(report.metadata)),
  ];
  return sections.join('\n\n');
}

function section(head: readonly string[], body: readonly (readonly string[])[]): readonly string[] {
  return body.length === 0 ? [] : [table(head, body)];
}

function list(label: string, items: readonly string[]): string[][] {
  return items.length === 0 ? [] : [[label, items.join(', ')]];
}

function rows(record: Readonly<Record<string, string | number>>): string[][] {
  return Object.entries(record).map(([key, value]) => [key, String(value)]);
}

function valueRow({ name, type, shape }: ValueReport): string[] {
  return [name, type, formatShape(shape)];
}

function parameterRow([dtype, { tensors, elements, sizeBytes }]: [string, ParameterReport]): string[] {
  return [dtype, String(tensors), elements.toLocaleString('en'), formatBytes(sizeBytes)];
}
