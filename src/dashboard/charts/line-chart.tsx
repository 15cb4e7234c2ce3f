import type { JSX } from 'preact';
import { useEffect, useRef } from 'preact/hooks';
import uPlot from 'uplot';
import * as written from '../format.ts';
import { DataTable } from './data-table.tsx';
import { colour, lineColour, LINES, onRecolour } from './palette.ts';

/** One line over time, with a band around it where there is one. */
export interface Line {
  readonly title: string;
  readonly values: readonly (number | null)[];
  readonly low?: readonly (number | null)[];
  readonly high?: readonly (number | null)[];
  /** Position in the palette. Default: its place in the list. */
  readonly colour?: number;
  readonly dashed?: boolean;
}

/** A level that lines are compared with. */
export interface Level {
  readonly at: number;
  readonly title: string;
  readonly tone: 'good' | 'bad' | 'muted';
}

/** What a chart shows. */
export interface LineChartProps {
  readonly title: string;
  /** Milliseconds since 1970. */
  readonly times: readonly number[];
  readonly lines: readonly Line[];
  readonly levels?: readonly Level[];
  readonly format: (value: number) => string;
  readonly height?: number;
  /** Charts of one page with the same name share their cursor. */
  readonly sync?: string;
}

/** Lines that the legend and the box under the cursor name. */
const MOST_NAMES = 12;

/** Lines over time, with the figures behind them. */
export function LineChart(props: LineChartProps): JSX.Element {
  const host = useRef<HTMLDivElement>(null);
  const { times, lines, levels = [], format, height = 200, sync } = props;
  const shape = JSON.stringify([
    lines.map(({ title, values, low, colour: place, dashed }) => {
      return [title, isLone(values), low !== undefined, place, dashed];
    }),
    levels,
    height,
  ]);
  const plot = useRef<uPlot | null>(null);
  // A refresh changes the figures and not the chart.
  const present = useRef(lines);
  present.current = lines;
  const data = (): uPlot.AlignedData => [
    times.map((ms) => ms / 1000),
    ...lines.flatMap(({ values, low, high }) => [[...values], ...(low && high ? [[...high], [...low]] : [])]),
  ];
  useEffect(() => {
    const element = host.current;
    if (element === null) return undefined;
    const series: uPlot.Series[] = [{}];
    const bands: uPlot.Band[] = [];
    lines.forEach(({ title, values, low, colour: place, dashed }, index) => {
      // Asked for at each drawing: the theme may have changed.
      const stroke = (): string => lineColour(place ?? index);
      series.push({
        label: title,
        stroke,
        width: 1.75,
        spanGaps: false,
        points: { show: isLone(values) },
        ...(dashed === true && { dash: [4, 4] }),
      });
      if (low === undefined) return;
      const edge: uPlot.Series = { stroke: 'transparent', width: 0, points: { show: false } };
      series.push(edge, edge);
      bands.push({ series: [series.length - 2, series.length - 1], fill: () => `${stroke()}26` });
    });
    const axis = {
      stroke: () => colour('muted'),
      grid: { stroke: () => colour('grid'), width: 1 },
      ticks: { show: false },
    };
    const drawLevels = (chart: uPlot): void => {
      const { ctx, bbox } = chart;
      for (const { at, title, tone } of levels) {
        const y = Math.round(chart.valToPos(at, 'y', true));
        if (y < bbox.top || y > bbox.top + bbox.height) continue;
        ctx.save();
        ctx.strokeStyle = colour(tone);
        ctx.fillStyle = colour(tone);
        ctx.setLineDash([5 * devicePixelRatio, 4 * devicePixelRatio]);
        ctx.beginPath();
        ctx.moveTo(bbox.left, y);
        ctx.lineTo(bbox.left + bbox.width, y);
        ctx.stroke();
        ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
        ctx.textAlign = 'left';
        ctx.fillText(title, bbox.left + 6 * devicePixelRatio, y - 6 * devicePixelRatio);
        ctx.restore();
      }
    };
    const chart = new uPlot(
      {
        width: element.clientWidth,
        height,
        series,
        bands,
        legend: { show: false },
        cursor: { y: false, points: { size: 6 }, ...(sync !== undefined && { sync: { key: sync } }) },
        scales: {
          y: {
            range: (_, low, high) => {
              const ends = [low ?? 0, high ?? 0, ...levels.map(({ at }) => at)];
              const [least, most] = [Math.min(0, ...ends), Math.max(...ends)];
              return [least, most === least ? least + 1 : most + (most - least) * 0.08];
            },
          },
        },
        axes: [
          {
            ...axis,
            size: 28,
            font: '11px system-ui, sans-serif',
            values: (_, ticks, __, ___, step) =>
              ticks.map((tick) => (step < 86_400 ? hour(tick) : day(tick))),
          },
          {
            ...axis,
            size: 62,
            font: '11px system-ui, sans-serif',
            values: (_, ticks) => ticks.map((tick) => (tick === null ? '' : format(tick))),
          },
        ],
        hooks: { draw: [drawLevels] },
        plugins: [tooltip(() => present.current, format)],
      },
      data(),
      element,
    );
    plot.current = chart;
    const resize = new ResizeObserver(() => {
      if (element.clientWidth > 0) chart.setSize({ width: element.clientWidth, height });
    });
    resize.observe(element);
    const stopRecolouring = onRecolour(() => {
      chart.redraw(false, true);
    });
    return () => {
      resize.disconnect();
      stopRecolouring();
      chart.destroy();
      plot.current = null;
    };
  }, [shape]);
  useEffect(() => {
    plot.current?.setData(data());
  }, [times, lines]);
  return (
    <figure class="chart">
      <div ref={host} role="img" aria-label={props.title} />
      <figcaption>
        <ul class="legend">
          {lines.slice(0, MOST_NAMES).map(({ title, values, colour: place }, index) => (
            <li key={title}>
              <i class={`line-${(place ?? index) % LINES}`} aria-hidden="true" />
              {title}
              <b>{lastOf(values, format)}</b>
            </li>
          ))}
          {lines.length > MOST_NAMES && <li>and {lines.length - MOST_NAMES} more</li>}
        </ul>
        <DataTable
          title={props.title}
          head={['Time', ...lines.map(({ title }) => title)]}
          rows={() =>
            times
              .map((at, index) => [
                written.time(at),
                ...lines.map(({ values }) => valueOf(values[index], format)),
              ])
              .reverse()
          }
        />
      </figcaption>
    </figure>
  );
}

function lastOf(values: readonly (number | null)[], format: (value: number) => string): string {
  return valueOf(
    values.findLast((value) => value !== null),
    format,
  );
}

function valueOf(value: number | null | undefined, format: (value: number) => string): string {
  return value === null || value === undefined ? '–' : format(value);
}

const hours = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit' });
const days = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short' });

/** Ticks of the axis of time, seconds since 1970; midnight is a day. */
function hour(tick: number): string {
  const at = new Date(tick * 1000);
  return at.getHours() + at.getMinutes() === 0 ? days.format(at) : hours.format(at);
}

function day(tick: number): string {
  return days.format(tick * 1000);
}

/** Shows the values under the cursor. */
function tooltip(lines: () => readonly Line[], format: (value: number) => string): uPlot.Plugin {
  const box = document.createElement('div');
  box.className = 'tooltip';
  box.hidden = true;
  return {
    hooks: {
      init: [
        (chart) => {
          chart.over.append(box);
        },
      ],
      setCursor: [
        (chart) => {
          const { idx, left = -1 } = chart.cursor;
          box.hidden = idx === null || idx === undefined || left < 0;
          if (idx === null || idx === undefined || box.hidden) return;
          const rows = lines()
            .slice(0, MOST_NAMES)
            .map(({ title, values }) => {
              const row = document.createElement('div');
              row.textContent = `${title}  ${valueOf(values[idx], format)}`;
              return row;
            });
          const head = document.createElement('strong');
          head.textContent = written.time((chart.data[0]?.[idx] ?? 0) * 1000);
          box.replaceChildren(head, ...rows);
          const isRight = left > chart.over.clientWidth / 2;
          box.style.left = isRight ? 'auto' : `${left + 12}px`;
          box.style.right = isRight ? `${chart.over.clientWidth - left + 12}px` : 'auto';
        },
      ],
    },
  };
}

/** Whether there are so few values that they are no line. */
function isLone(values: readonly (number | null)[]): boolean {
  return values.filter((value) => value !== null).length < 3;
}
