import { resolve } from 'node:path';
import type { Command } from 'commander';
import type { ModelReport, ParameterReport, ValueReport } from '../onnx/inspect.ts';
import { loadModelFile } from './model-file.ts';
import { formatBytes, table, type Terminal } from './terminal.ts';

/** Adds `inlay inspect`. */
export function addInspect(program: Command, terminal: Terminal): void {
  program
    .command('inspect')
    .description('show what is inside a model file')
    .argument('<file>', 'ONNX model')
    .option('--json', 'print JSON')
    .action(async (file: string, flags: { readonly json?: true }) => {
      const { bytes, report } = await loadModelFile(resolve(terminal.cwd, file));
      if (flags.json) terminal.print(JSON.stringify({ sizeBytes: bytes.length, ...report }));
      else terminal.print(describe(report, bytes.length));
    });
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
  return [name, type, shape ? `[${shape.map((axis) => axis ?? '?').join(', ')}]` : '(unknown)'];
}

function parameterRow([dtype, { tensors, elements, sizeBytes }]: [string, ParameterReport]): string[] {
  return [dtype, String(tensors), elements.toLocaleString('en'), formatBytes(sizeBytes)];
}
