/** What an update is made of, as one HTML file that needs nothing else. */

import type { FactTable } from '../optimize/report-facts.ts';
import { writePage, writeTable } from '../optimize/report-html.ts';
import { drawBars, escapeHtml, type BarPlot } from '../optimize/report-plots.ts';
import type { ExplainedSegment, PatchExplanation, PatchPart } from '../publish/delta/explain.ts';
import { formatShare } from './format.ts';
import { formatBytes } from './terminal.ts';

/** Most tensors that are plotted: the costly ones. */
const MOST_TENSORS = 40;

const partTitles: Readonly<Record<PatchPart, string>> = {
  magnitudes: 'magnitudes',
  noise: 'lower bits and signs',
  scales: 'scales',
  factors: 'factors',
  bytes: 'plain bytes',
  framing: 'framing',
};

/** Writes the report of an update. */
export function toDiffPage(
  { segments, ratio, patchBytes, targetBytes, tableBytes }: PatchExplanation,
  facts: readonly (readonly [label: string, value: string])[],
  tables: readonly FactTable[],
): string {
  const title = `Update: ${formatShare(ratio)} of the file`;
  const costly = segments
    .filter(({ mode, names }) => mode !== 'same' && names.length > 0)
    .sort((a, b) => b.patchBytes - a.patchBytes)
    .slice(0, MOST_TENSORS);
  const parts = (Object.keys(partTitles) as PatchPart[]).map((part) => ({
    label: partTitles[part],
    value: segments.reduce((sum, segment) => sum + segment.parts[part], 0),
  }));
  const plots: readonly BarPlot[] = [
    {
      title: 'Bytes',
      description: 'Bytes of the file and of the patch',
      bars: [
        { label: 'file', value: targetBytes, text: formatBytes(targetBytes) },
        {
          label: 'patch',
          value: patchBytes,
          text: `${formatBytes(patchBytes)}, ${formatShare(ratio)}`,
          isMarked: true,
        },
      ],
    },
    {
      title: 'What the patch is made of',
      description: 'Bytes of the patch by what they are for',
      bars: [...parts, { label: 'tables', value: tableBytes }]
        .filter(({ value }) => value > 0)
        .map((bar) => ({ ...bar, text: formatBytes(bar.value) })),
    },
    {
      title: 'Bytes of the patch by tensor',
      description: 'Bytes of the patch for each tensor that changed',
      bars: costly.map((segment) => ({
        label: nameOf(segment),
        value: segment.patchBytes,
        text: `${formatBytes(segment.patchBytes)}, ${formatShare(segment.share)}`,
      })),
    },
    {
      title: 'Bits of the patch for each number',
      description: 'Bits for each number by tensor',
      bars: costly.flatMap((segment) =>
        segment.bitsPerNumber === undefined
          ? []
          : [
              {
                label: nameOf(segment),
                value: segment.bitsPerNumber,
                text: segment.bitsPerNumber.toFixed(2),
              },
            ],
      ),
    },
  ];
  return writePage(title, [
    `<h1>${escapeHtml(title)}</h1>`,
    `<dl>${facts.map(([label, value]) => `<dt>${escapeHtml(label)}</dt><dd>${escapeHtml(value)}</dd>`).join('')}</dl>`,
    ...plots.filter(({ bars }) => bars.length > 0).map(drawBars),
    ...tables.filter(({ rows }) => rows.length > 0).map(writeTable),
  ]);
}

function nameOf({ names }: ExplainedSegment): string {
  const [first = '', ...others] = names;
  return others.length === 0 ? first : `${first} and ${others.length} more`;
}
