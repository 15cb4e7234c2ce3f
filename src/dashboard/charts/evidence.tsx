import type { JSX } from 'preact';
import type { GuardEvidence } from '../../server/api/answers.ts';

const WIDTH = 112;
const HEIGHT = 34;

/** Evidence of a guard over its looks, as small as a word: both lines, and what each has to reach. */
export function EvidenceLines({ guard }: { readonly guard: GuardEvidence }): JSX.Element | null {
  const { history, failAt, passAt } = guard;
  if (history.length === 0) return null;
  const values = history.flatMap(({ fail, pass }) => [fail, pass]);
  const [low, high] = [Math.min(0, ...values), Math.max(failAt, passAt, ...values)];
  const x = (index: number): number => (index / Math.max(1, history.length - 1)) * (WIDTH - 4) + 2;
  const y = (value: number): number => HEIGHT - 3 - ((value - low) / (high - low)) * (HEIGHT - 6);
  const line = (of: 'fail' | 'pass'): string =>
    history.map((look, index) => `${x(index).toFixed(1)},${y(look[of]).toFixed(1)}`).join(' ');
  const said =
    `Evidence that it is worse: ${guard.logEFail.toFixed(1)} of ${failAt.toFixed(1)}; ` +
    `that it is good enough: ${guard.logEPass.toFixed(1)} of ${passAt.toFixed(1)}`;
  return (
    <svg class="evidence" width={WIDTH} height={HEIGHT} role="img" aria-label={said}>
      <title>{said}</title>
      <line class="fail" x1="2" x2={WIDTH - 2} y1={y(failAt)} y2={y(failAt)} />
      <line class="pass" x1="2" x2={WIDTH - 2} y1={y(passAt)} y2={y(passAt)} />
      <polyline class="fail" points={line('fail')} />
      <polyline class="pass" points={line('pass')} />
    </svg>
  );
}
