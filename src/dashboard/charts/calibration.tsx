import type { JSX } from 'preact';
import * as format from '../format.ts';
import { DataTable } from './data-table.tsx';

const SIZE = 260;
const LEFT = 44;
const FOOT = 38;
const SIDE = SIZE - LEFT - 8;

/** How often a model is right when it says that it is so sure. */
export function Calibration(props: {
  readonly version: string;
  /** Labels, right ones and the sum of what the model was sure of, by bins. */
  readonly bins: readonly (readonly [n: number, right: number, sure: number])[];
}): JSX.Element | null {
  const known = props.bins.flatMap(([n, right, sure]) =>
    n > 0 ? [{ n, right: right / n, sure: sure / n }] : [],
  );
  if (known.length === 0) return null;
  const most = Math.max(...known.map(({ n }) => n));
  const x = (share: number): number => LEFT + share * SIDE;
  const y = (share: number): number => 8 + (1 - share) * SIDE;
  return (
    <figure class="chart calibration">
      <svg
        viewBox={`0 0 ${SIZE} ${8 + SIDE + FOOT}`}
        role="img"
        aria-label={`How often version ${props.version} is right by how sure it is`}
      >
        {[0, 0.5, 1].map((share) => (
          <g key={share}>
            <line class="grid" x1={x(0)} x2={x(1)} y1={y(share)} y2={y(share)} />
            <line class="grid" x1={x(share)} x2={x(share)} y1={y(0)} y2={y(1)} />
            <text x={x(0) - 6} y={y(share) + 4} text-anchor="end">
              {share * 100} %
            </text>
            <text x={x(share)} y={y(0) + 16} text-anchor={share === 1 ? 'end' : 'middle'}>
              {share * 100} %
            </text>
          </g>
        ))}
        <line class="level" x1={x(0)} y1={y(0)} x2={x(1)} y2={y(1)} />
        {known.map(({ n, right, sure }) => (
          <circle key={sure} cx={x(sure)} cy={y(right)} r={2 + 5 * Math.sqrt(n / most)}>
            <title>{`${format.percent(sure)} sure, ${format.percent(right)} right, ${format.count(n)} labels`}</title>
          </circle>
        ))}
        <text x={x(0.5)} y={y(0) + 33} text-anchor="middle">
          how sure it is
        </text>
      </svg>
      <figcaption>
        <p class="hint">How often it is right, by how sure it is. On the line it is both alike.</p>
        <DataTable
          title={`the calibration of ${props.version}`}
          head={['How sure', 'Right', 'Labels']}
          rows={() =>
            known.map(({ n, right, sure }) => [format.percent(sure), format.percent(right), format.count(n)])
          }
        />
      </figcaption>
    </figure>
  );
}
