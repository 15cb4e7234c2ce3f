/** What judges a release whose weights are rounded: the publisher's metric, or answers to inputs. */

import { InputError } from '../core/errors.ts';
import type { OptimizeRuntime } from '../optimize/runtime.ts';
import { openTarget } from '../optimize-node/target.ts';
import {
  createMetricGate,
  isReached,
  openAnswerGate,
  type AnswerLimits,
  type Figure,
  type Gate,
} from '../publish/compact/gate.ts';
import { readSamples } from './optimize-inputs.ts';
import { runMetric } from './publish-metric.ts';

/** What {@link openGate} works with. */
export interface GateRequest {
  /** What devices have. Absent: a score is held against that of `next` alone. */
  readonly base?: Uint8Array<ArrayBuffer>;
  /** What was trained. */
  readonly next: Uint8Array<ArrayBuffer>;
  readonly limits: AnswerLimits & { readonly maxLoss: number };
  /** Command that prints a score. Absent: answers are compared. */
  readonly command: string | undefined;
  /** Absolute path of a data file. */
  readonly data: string | undefined;
  readonly cwd: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Opens the runtime that answers are compared in. Default: that of this machine. */
  readonly open?: ((target: 'node-cpu') => Promise<OptimizeRuntime>) | undefined;
}

/** Inputs that answers are compared on. */
const mostSamples = 1024;

/**
 * Opens a gate.
 * @throws {@link InputError} for samples that do not fit, or where there is neither data nor a metric; `RangeError` for a metric that gives no number.
 */
export async function openGate({
  base,
  next,
  limits,
  command,
  data,
  cwd,
  env,
  open = openTarget,
}: GateRequest): Promise<{ readonly gate: Gate; readonly close: () => Promise<void> }> {
  if (command !== undefined) {
    const gate = await createMetricGate({
      base,
      next,
      metric: (bytes) => runMetric({ command, cwd, env }, bytes),
      maxLoss: limits.maxLoss,
    });
    return { gate, close: () => Promise.resolve() };
  }
  if (data === undefined) {
    throw new InputError(
      'ERR_INLAY_FEED_MISSING',
      'Whether rounded weights are good enough is judged on data; give --compact-data, --reference, --golden or --compact-metric.',
    );
  }
  const runtime = await open('node-cpu');
  try {
    const session = await runtime.open(next);
    const signature = { inputs: session.inputs, outputs: session.outputs };
    await session.release();
    const samples = await readSamples(data, signature, { limit: mostSamples });
    const gate = await openAnswerGate({ runtime, next, samples, limits });
    return { gate, close: () => runtime.close() };
  } catch (error) {
    await runtime.close();
    throw error;
  }
}

/** Heads of the columns of {@link describeFigures}. */
export const figureColumns = ['quality', 'limit'] as const;

/** Says what figures are, and beside it what they had to be: a line for each. */
export function describeFigures(figures: readonly Figure[]): readonly [quality: string, limit: string] {
  const number = (one: number): string => String(Number(one.toPrecision(4)));
  const limitOf = ({ limit }: Figure): string => {
    if (limit === undefined) return 'none';
    return 'atLeast' in limit ? `at least ${number(limit.atLeast)}` : `at most ${number(limit.atMost)}`;
  };
  return [
    figures.map(({ name, value }) => `${name} ${number(value)}`).join('\n'),
    figures.map((figure) => `${limitOf(figure)}${isReached(figure) ? '' : ', missed'}`).join('\n'),
  ];
}
