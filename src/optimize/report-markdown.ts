/** A report as GitHub-flavoured Markdown. */

import type { FactTable, ReportFacts } from './report-facts.ts';

/** Writes a report as Markdown. */
export function toMarkdown({ title, verdict, facts, warnings, tables }: ReportFacts): string {
  const parts = [
    `# ${escape(title)}`,
    escape(verdict),
    ...(warnings.length > 0
      ? [warnings.map((warning) => `> **Note:** ${escape(warning)}`).join('\n>\n')]
      : []),
    facts.map(([label, value]) => `- ${label}: ${escape(value)}`).join('\n'),
    ...tables.map(writeTable),
  ];
  return `${parts.join('\n\n')}\n`;
}

function writeTable({ title, head, rows, marked }: FactTable): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  const lines = rows.map((row, i) =>
    line(row.map((cell) => (i === marked ? `**${escape(cell)}**` : escape(cell)))),
  );
  return [`## ${title}`, '', line(head), line(head.map(() => '---')), ...lines].join('\n');
}

/** Names of nodes come from anyone: they must make neither markup nor cells. */
function escape(text: string): string {
  return text.replace(/[\\|<>*_`[\]#]/g, '\\$&').replace(/\s+/g, ' ');
}
