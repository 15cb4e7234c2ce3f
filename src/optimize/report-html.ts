/** A report as one HTML file that needs nothing else: for phones too, light and dark, without a script. */

import { percent, round } from './choose.ts';
import type { Attempt, Decision } from './decision.ts';
import { formatDb, formatMs, formatSize, type FactTable, type ReportFacts } from './report-facts.ts';
import { drawBars, escapeHtml, type BarPlot } from './report-plots.ts';

/** Most layers that are plotted: the worst ones. */
const mostLayers = 40;

/** Writes a report as HTML. */
export function toHtml(decision: Decision, { title, verdict, facts, warnings, tables }: ReportFacts): string {
  const body = [
    `<h1>${escapeHtml(title)}</h1>`,
    `<p class="verdict">${escapeHtml(verdict)}</p>`,
    ...warnings.map((warning) => `<p class="note">${escapeHtml(warning)}</p>`),
    `<dl>${facts.map(([label, value]) => `<dt>${escapeHtml(label)}</dt><dd>${escapeHtml(value)}</dd>`).join('')}</dl>`,
    ...plotsOf(decision).map(drawBars),
    ...tables.map(writeTable),
  ];
  return writePage(title, body);
}

/** Writes a page of its own around parts that are HTML already. */
export function writePage(title: string, body: readonly string[]): string {
  return (
    `<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n` +
    `<meta name="viewport" content="width=device-width, initial-scale=1">\n` +
    `<meta name="color-scheme" content="light dark">\n` +
    `<title>${escapeHtml(title)}</title>\n<style>${style}</style>\n</head>\n<body>\n<main>\n` +
    `${body.join('\n')}\n</main>\n</body>\n</html>\n`
  );
}

/** Sizes, a plot of latencies for each batch, and the layers of what was taken, or else of what came nearest. */
function plotsOf({ original, attempts, batches, chosen }: Decision): readonly BarPlot[] {
  const all = [original, ...attempts];
  const isMarked = ({ name, outcome }: Attempt): boolean =>
    outcome === 'chosen' || (chosen === null && name === original.name);
  const plots: BarPlot[] = [
    {
      title: 'Size',
      description: 'Size of each candidate',
      bars: all.flatMap((attempt) =>
        attempt.sizeBytes === undefined
          ? []
          : [
              {
                label: attempt.name,
                value: attempt.sizeBytes,
                text: `${formatSize(attempt.sizeBytes)}, ${percent(attempt.sizeRatio ?? 1)}`,
                isMarked: isMarked(attempt),
              },
            ],
      ),
    },
    ...batches.map((batch) => ({
      title: `Latency with ${batch} ${batch === 1 ? 'row' : 'rows'}, 10th percentile`,
      description: `Latency of each candidate at batch ${batch}`,
      bars: all.flatMap((attempt) => {
        const time = attempt.times?.find((one) => one.batch === batch);
        if (time === undefined) return [];
        const text = `${formatMs(time.p10Ms)}, ${round(time.speedup)}×`;
        return [{ label: attempt.name, value: time.p10Ms, text, isMarked: isMarked(attempt) }];
      }),
    })),
  ];
  const layered =
    attempts.find(({ layers, outcome }) => layers !== undefined && outcome === 'chosen') ??
    attempts.find(({ layers }) => layers !== undefined);
  if (layered?.layers !== undefined) {
    const worst = [...layered.layers]
      .sort((a, b) => (a.sqnrDb ?? Infinity) - (b.sqnrDb ?? Infinity))
      .slice(0, mostLayers);
    const shown = layered.layers.filter((layer) => worst.includes(layer));
    plots.push({
      title: `Signal-to-noise ratio of the values of ${layered.name}, in order`,
      description: 'Signal-to-noise ratio by layer',
      bars: shown.map(({ value, sqnrDb }) => ({
        label: value,
        // Equal values have no finite ratio; they are at the edge.
        value: Math.min(sqnrDb ?? 100, 100),
        text: formatDb(sqnrDb),
      })),
    });
  }
  return plots.filter(({ bars }) => bars.length > 0);
}

/** Writes a table under its heading. */
export function writeTable({ title, head, rows, marked }: FactTable): string {
  const cells = (row: readonly string[], tag: string): string =>
    row.map((cell) => `<${tag}>${escapeHtml(withUnits(cell))}</${tag}>`).join('');
  const lines = rows.map((row, i) => `<tr${i === marked ? ' class="marked"' : ''}>${cells(row, 'td')}</tr>`);
  return (
    `<h2>${escapeHtml(title)}</h2><div class="table"><table><thead><tr>${cells(head, 'th')}</tr></thead>` +
    `<tbody>${lines.join('')}</tbody></table></div>`
  );
}

/** Keeps numbers and their units in one line. */
function withUnits(text: string): string {
  return text.replace(/(\d) (?=(?:%|[kMG]?B|ms|dB)(?:\W|$))/g, '$1\u00a0');
}

const style = `
:root { --ink: #1b1f24; --faint: #59636e; --line: #d1d9e0; --paper: #fff; --bar: #9db7d5; --mark: #0b6e4f; --note: #fff4d6 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --faint: #9aa5b1; --line: #30363d; --paper: #0d1117; --bar: #3f5878; --mark: #3fb98a; --note: #3a2f10 }
}
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif }
main { max-width: 60rem; margin: 0 auto; padding: 1.5rem 1rem 4rem }
h1 { font-size: 1.6rem; margin: 0 0 .5rem } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem }
.verdict { font-size: 1.1rem; margin: 0 0 1rem }
.note { background: var(--note); border-radius: .4rem; padding: .6rem .8rem }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem } dt { color: var(--faint) } dd { margin: 0 }
figure { margin: 1.5rem 0 } figcaption { color: var(--faint); margin-bottom: .3rem }
svg { display: block; width: 100%; height: auto; overflow: visible } svg text { fill: var(--ink); font-size: 13px }
.bar { fill: var(--bar) } .bar.marked { fill: var(--mark) }
.table { overflow-x: auto } table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .35rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top }
th { color: var(--faint); font-weight: 600 } tr.marked td { color: var(--mark); font-weight: 600 }
@media (max-width: 30rem) { svg text { font-size: 17px } }
@media (max-width: 40rem) { table { font-size: .9rem }
  th, td { padding: .35rem .4rem } dl { grid-template-columns: 1fr } dd { margin-bottom: .4rem } }
`;
