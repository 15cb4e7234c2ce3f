import type { JSX } from 'preact';
import * as format from '../format.ts';
import { DataTable } from './data-table.tsx';

const HEIGHT = 150;
const FOOT = 34;

/** Shares of a reference and of now, bin by bin. */
export function Bars(props: {
  readonly title: string;
  readonly bins: readonly string[];
  readonly reference: readonly number[];
  readonly current: readonly number[];
}): JSX.Element {
  const { bins, reference, current } = props;
  const most = Math.max(1e-9, ...reference, ...current);
  const step = 100 / Math.max(1, bins.length);
  const bar = (share: number, x: number, kind: string): JSX.Element => {
    const height = (share / most) * (HEIGHT - FOOT);
    return (
      <rect
        class={kind}
        x={`${x}%`}
        y={HEIGHT - FOOT - height}
        width={`${step * 0.38}%`}
        height={Math.max(height, share > 0 ? 1 : 0)}
        rx="1.5"
      />
    );
  };
  return (
    <figure class="chart">
      <svg class="bars" width="100%" height={HEIGHT} role="img" aria-label={props.title}>
        {bins.map((bin, index) => (
          <g key={bin}>
            <title>{`${bin}: reference ${format.percent(reference[index])}, now ${format.percent(current[index])}`}</title>
            {bar(reference[index] ?? 0, index * step + step * 0.1, 'reference')}
            {bar(current[index] ?? 0, index * step + step * 0.5, 'current')}
            {index % Math.ceil(bins.length / 12) === 0 && (
              <text x={`${(index + 0.5) * step}%`} y={HEIGHT - 16} text-anchor="middle">
                {bin.length > 13 ? `${bin.slice(0, 12)}…` : bin}
              </text>
            )}
          </g>
        ))}
      </svg>
      <figcaption>
        <ul class="legend">
          <li>
            <i class="reference" aria-hidden="true" />
            reference
          </li>
          <li>
            <i class="current" aria-hidden="true" />
            now
          </li>
        </ul>
        <DataTable
          title={props.title}
          head={['Bin', 'Reference', 'Now']}
          rows={() =>
            bins.map((bin, index) => [bin, format.percent(reference[index]), format.percent(current[index])])
          }
        />
      </figcaption>
    </figure>
  );
}

/** A line as small as a word. */
export function Sparkline(props: {
  readonly title: string;
  readonly values: readonly (number | null)[];
  readonly level?: number | null;
}): JSX.Element | null {
  const { values, level } = props;
  const known = values.filter((value) => value !== null);
  if (known.length < 2) return null;
  const most = Math.max(...known, level ?? 0, 1e-9);
  const x = (index: number): number => (index / (values.length - 1)) * 76 + 2;
  const y = (value: number): number => 20 - (value / most) * 17;
  const points = values.flatMap((value, index) => (value === null ? [] : [`${x(index)},${y(value)}`]));
  return (
    <svg class="spark" width="80" height="22" role="img" aria-label={props.title}>
      {level !== null && level !== undefined && (
        <line class="level" x1="2" x2="78" y1={y(level)} y2={y(level)} />
      )}
      <polyline points={points.join(' ')} />
    </svg>
  );
}
