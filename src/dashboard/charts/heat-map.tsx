import type { JSX } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import type { HeatmapAnswer } from '../../server/api/answers.ts';
import * as format from '../format.ts';
import { colour } from './palette.ts';

const HEIGHT = 220;
const AXIS = 62;
const FOOT = 22;

/** Calls by time and by how long they took; darker is more. */
export function HeatMap({ answer }: { readonly answer: HeatmapAnswer }): JSX.Element {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [pointed, setPointed] = useState<string>();
  const { times, edges, counts } = answer;
  const most = Math.max(1, ...counts.flatMap((row) => (row === null ? [] : Math.max(0, ...row))));
  useEffect(() => {
    const element = canvas.current;
    if (element === null) return undefined;
    const draw = (): void => {
      const width = element.clientWidth;
      element.width = width * devicePixelRatio;
      element.height = HEIGHT * devicePixelRatio;
      const ctx = element.getContext('2d');
      if (ctx === null) return;
      ctx.scale(devicePixelRatio, devicePixelRatio);
      ctx.clearRect(0, 0, width, HEIGHT);
      const cellWidth = (width - AXIS) / Math.max(1, times.length);
      const cellHeight = (HEIGHT - FOOT) / Math.max(1, edges.length);
      ctx.fillStyle = colour('heat');
      counts.forEach((row, x) => {
        row?.forEach((calls, y) => {
          if (calls === 0) return;
          ctx.globalAlpha = 0.08 + 0.92 * Math.sqrt(calls / most);
          const top = HEIGHT - FOOT - (y + 1) * cellHeight;
          ctx.fillRect(
            AXIS + x * cellWidth,
            top,
            Math.max(1, cellWidth - 0.5),
            Math.max(1, cellHeight - 0.5),
          );
        });
      });
      ctx.globalAlpha = 1;
      ctx.fillStyle = colour('muted');
      ctx.font = '11px system-ui, sans-serif';
      ctx.textAlign = 'right';
      const everyEdge = Math.ceil(edges.length / 6);
      edges.forEach((edge, y) => {
        if (y % everyEdge === 0) ctx.fillText(format.seconds(edge), AXIS - 8, HEIGHT - FOOT - y * cellHeight);
      });
      ctx.textAlign = 'center';
      const everyTime = Math.ceil(times.length / Math.max(1, Math.floor(width / 110)));
      times.forEach((at, x) => {
        if (x % everyTime === 0) ctx.fillText(format.time(at), AXIS + (x + 0.5) * cellWidth, HEIGHT - 6);
      });
    };
    draw();
    const resize = new ResizeObserver(draw);
    resize.observe(element);
    const theme = new MutationObserver(draw);
    theme.observe(document.documentElement, { attributeFilter: ['data-theme'] });
    return () => {
      resize.disconnect();
      theme.disconnect();
    };
  }, [answer]);
  const point = (event: MouseEvent): void => {
    const element = canvas.current;
    if (element === null) return;
    const x = Math.floor(((event.offsetX - AXIS) / (element.clientWidth - AXIS)) * times.length);
    const y = Math.floor(((HEIGHT - FOOT - event.offsetY) / (HEIGHT - FOOT)) * edges.length);
    const calls = counts[x]?.[y];
    const [at, edge] = [times[x], edges[y]];
    setPointed(
      calls === undefined || at === undefined || edge === undefined
        ? undefined
        : `${format.time(at)}, up to ${format.seconds(edge)}: ${format.count(calls)} calls`,
    );
  };
  return (
    <figure class="chart">
      <canvas
        ref={canvas}
        class="heat"
        role="img"
        aria-label="Calls by time and by how long they took"
        onMouseMove={point}
        onMouseLeave={() => {
          setPointed(undefined);
        }}
      />
      <figcaption class="hint">{pointed ?? 'Point at a cell to see its calls.'}</figcaption>
    </figure>
  );
}
