/** Plots of a report as inline SVG: no script, and colours that follow the page. */

/** A bar. */
export interface Bar {
  readonly label: string;
  readonly value: number;
  /** What stands behind it. */
  readonly text: string;
  readonly isMarked?: boolean;
}

/** Bars under one heading. */
export interface BarPlot {
  readonly title: string;
  /** For readers who do not see it. */
  readonly description: string;
  readonly bars: readonly Bar[];
}

const width = 640;
const rowHeight = 26;
const labelWidth = 170;
const textWidth = 130;

/** Draws horizontal bars from zero; values below zero have none. */
export function drawBars({ title, description, bars }: BarPlot): string {
  const largest = Math.max(...bars.map(({ value }) => value), Number.MIN_VALUE);
  const room = width - labelWidth - textWidth;
  const drawn = bars.map(({ label, value, text, isMarked = false }, i) => {
    const y = i * rowHeight;
    const length = Math.max(1, (room * Math.max(0, value)) / largest);
    const middle = y + rowHeight / 2 + 4;
    return (
      `<text x="${labelWidth - 8}" y="${middle}" text-anchor="end">${escapeHtml(shorten(label))}</text>` +
      `<rect x="${labelWidth}" y="${y + 4}" width="${length.toFixed(1)}" height="${rowHeight - 8}" rx="3"` +
      ` class="${isMarked ? 'bar marked' : 'bar'}"/>` +
      `<text x="${(labelWidth + length + 8).toFixed(1)}" y="${middle}">${escapeHtml(text)}</text>`
    );
  });
  return (
    `<figure><figcaption>${escapeHtml(title)}</figcaption>` +
    `<svg viewBox="0 0 ${width} ${bars.length * rowHeight}" role="img" aria-label="${escapeHtml(description)}">` +
    `${drawn.join('')}</svg></figure>`
  );
}

/** Writes text so that it is nothing but text, also inside of attributes. */
export function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);
}

/** Names of values are paths, whose ends tell them apart. */
function shorten(label: string): string {
  return label.length > 24 ? `…${label.slice(-23)}` : label;
}
