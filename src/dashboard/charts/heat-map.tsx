import type { JSX } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import type { HeatmapAnswer } from '../../server/api/answers.ts';
import * as format from '../format.ts';
import { DataTable } from './data-table.tsx';
import { colour, onRecolour } from './palette.ts';

const HEIGHT = 220;
const AXIS = 62;
const FOOT = 22;

/** Calls by time and by how long they took; the stronger the colour, the more. The arrow keys go from cell to cell. */
export function HeatMap({ answer }: { readonly answer: HeatmapAnswer }): JSX.Element {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [cell, setCell] = useState<readonly [x: number, y: number]>();
  const { times, edges, counts } = answer;
  useEffect(() => {
    const element = canvas.current;
    if (element === null) return undefined;
    const redraw = (): void => {
      draw(element, answer, cell);
    };
    redraw();
    const resize = new ResizeObserver(redraw);
    resize.observe(element);
    const stopRecolouring = onRecolour(redraw);
    return () => {
      resize.disconnect();
      stopRecolouring();
    };
  }, [answer, cell]);
  const point = (event: MouseEvent): void => {
    const element = canvas.current;
    if (element === null) return;
    const x = Math.floor(((event.offsetX - AXIS) / (element.clientWidth - AXIS)) * times.length);
    const y = Math.floor(((HEIGHT - FOOT - event.offsetY) / (HEIGHT - FOOT)) * edges.length);
    setCell(x >= 0 && y >= 0 ? [x, y] : undefined);
  };
  const go = (event: KeyboardEvent): void => {
    const step = steps[event.key];
    if (step === undefined) return;
    event.preventDefault();
    const [x, y] = cell ?? [times.length - 1, Math.floor(edges.length / 2)];
    setCell([clamp(x + step[0], times.length), clamp(y + step[1], edges.length)]);
  };
  return (
    <figure class="chart">
      <canvas
        ref={canvas}
        class="heat"
        role="img"
        tabIndex={0}
        aria-label="Calls by time and by how long they took; the arrow keys go from cell to cell"
        onMouseMove={point}
        onMouseLeave={() => {
          setCell(undefined);
        }}
        onKeyDown={go}
      />
      <figcaption>
        <p class="hint" aria-live="polite">
          {cell === undefined
            ? 'Point at a cell, or use the arrow keys, to see its calls.'
            : said(answer, cell)}
        </p>
        <DataTable
          title="calls by how long they took"
          head={['Time', 'Calls', 'Half were answered within', '95 % within']}
          rows={() =>
            times
              .map((at, x) => {
                const row = counts[x] ?? null;
                if (row === null) return [format.time(at), '< 20 devices', '–', '–'];
                const calls = row.reduce((sum, n) => sum + n, 0);
                return [
                  format.time(at),
                  format.count(calls),
                  format.seconds(edgeAt(row, edges, calls / 2)),
                  format.seconds(edgeAt(row, edges, calls * 0.95)),
                ];
              })
              .reverse()
          }
        />
      </figcaption>
    </figure>
  );
}

const steps: Readonly<Record<string, readonly [x: number, y: number]>> = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, 1],
  ArrowDown: [0, -1],
};

function clamp(value: number, length: number): number {
  return Math.max(0, Math.min(length - 1, value));
}

function said({ times, edges, counts }: HeatmapAnswer, [x, y]: readonly [number, number]): string {
  const [at, edge, row] = [times[x], edges[y], counts[x]];
  if (at === undefined || edge === undefined) return '';
  const below = y > 0 ? `${format.seconds(edges[y - 1])} to ` : 'up to ';
  const calls = row ? `${format.count(row[y] ?? 0)} calls` : 'fewer than 20 devices';
  return `${format.time(at)}, ${below}${format.seconds(edge)}: ${calls}`;
}

/** The upper edge of the bucket in which so many calls are reached. */
function edgeAt(row: readonly number[], edges: readonly number[], calls: number): number | null {
  if (calls === 0) return null;
  let sum = 0;
  const at = row.findIndex((n) => (sum += n) >= calls);
  return edges[at] ?? null;
}

function draw(
  element: HTMLCanvasElement,
  { times, edges, counts }: HeatmapAnswer,
  cell: readonly [x: number, y: number] | undefined,
): void {
  const width = element.clientWidth;
  element.width = width * devicePixelRatio;
  element.height = HEIGHT * devicePixelRatio;
  const ctx = element.getContext('2d');
  if (ctx === null) return;
  ctx.scale(devicePixelRatio, devicePixelRatio);
  const cellWidth = (width - AXIS) / Math.max(1, times.length);
  const cellHeight = (HEIGHT - FOOT) / Math.max(1, edges.length);
  // Lines between narrow cells would be all that is seen.
  const gap = cellWidth > 6 ? 1 : 0;
  const most = counts.reduce((high, row) => Math.max(high, ...(row ?? [])), 1);
  ctx.fillStyle = colour('heat');
  counts.forEach((row, x) => {
    const [left, right] = [Math.round(x * cellWidth), Math.round((x + 1) * cellWidth)];
    row?.forEach((calls, y) => {
      if (calls === 0) return;
      ctx.globalAlpha = 0.08 + 0.92 * Math.sqrt(calls / most);
      const [low, high] = [Math.round(y * cellHeight), Math.round((y + 1) * cellHeight)];
      ctx.fillRect(
        AXIS + left,
        HEIGHT - FOOT - high,
        Math.max(1, right - left - gap),
        Math.max(1, high - low - 1),
      );
    });
  });
  ctx.globalAlpha = 1;
  if (cell !== undefined) {
    ctx.strokeStyle = colour('text');
    ctx.lineWidth = 1.5;
    const top = HEIGHT - FOOT - (cell[1] + 1) * cellHeight;
    ctx.strokeRect(AXIS + cell[0] * cellWidth - 1, top - 1, Math.max(4, cellWidth) + 1, cellHeight + 1);
  }
  ctx.fillStyle = colour('muted');
  ctx.font = '11px system-ui, sans-serif';
  ctx.textAlign = 'right';
  const everyEdge = Math.ceil(edges.length / 6);
  edges.forEach((edge, y) => {
    if (y % everyEdge === 0)
      ctx.fillText(format.seconds(edge), AXIS - 8, HEIGHT - FOOT - (y + 0.5) * cellHeight + 4);
  });
  ctx.textAlign = 'center';
  const everyTime = Math.ceil(times.length / Math.max(1, Math.floor(width / 120)));
  times.forEach((at, x) => {
    const middle = AXIS + (x + 0.5) * cellWidth;
    if (x % everyTime === 0 && middle < width - 40 && x > 0)
      ctx.fillText(format.time(at), middle, HEIGHT - 6);
  });
}
