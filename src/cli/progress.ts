/** Progress of long commands: a bar where someone watches, a line now and then elsewhere. */
import { SingleBar } from 'cli-progress';
import type { Terminal } from './terminal.ts';

/** How far a command has come. */
export interface ProgressState {
  /** What is done of `total`, in whatever unit. */
  readonly position: number;
  readonly total: number;
  /** Rows that are done. */
  readonly rows: number;
  readonly skipped: number;
}

/** Shows progress until it is stopped. */
export interface ProgressDisplay {
  update(state: ProgressState): void;
  stop(): void;
}

/** Options of {@link createProgress}. */
export interface ProgressOptions {
  readonly terminal: Terminal;
  /** Where a bar can be drawn; absent: lines are printed instead. */
  readonly bar?: NodeJS.WritableStream | undefined;
  /** What is counted in {@link ProgressState.rows}. Default: rows. */
  readonly unit?: string;
  readonly monotonicMs: () => number;
}

const lineMs = 5_000;

/** Starts to show progress. Nothing is drawn before the first update. */
export function createProgress({
  terminal,
  bar,
  unit = 'rows',
  monotonicMs,
}: ProgressOptions): ProgressDisplay {
  const started = monotonicMs();
  let first: ProgressState | undefined;
  let printedMs = started;
  const drawn =
    bar === undefined
      ? undefined
      : new SingleBar({
          format: ` {bar} {percentage} % | {rows} ${unit} | {rate} ${unit}/s | {left} left`,
          stream: bar,
          barCompleteChar: '\u2588',
          barIncompleteChar: '\u2591',
          barsize: 24,
          hideCursor: true,
          emptyOnZero: true,
          gracefulExit: false,
        });

  return {
    update: (state) => {
      const now = monotonicMs();
      const { rows, skipped, position, total } = state;
      if (first === undefined) {
        first = state;
        drawn?.start(total, position, { rows: '0', rate: '…', left: '…' });
        return;
      }
      const seconds = Math.max(now - started, 1) / 1000;
      const rate = (rows - first.rows) / seconds;
      const left = formatSeconds((seconds * (total - position)) / Math.max(position - first.position, 1));
      const shown = {
        rows: rows.toLocaleString('en'),
        rate: rate < 10 ? rate.toFixed(1) : rate.toFixed(0),
        left,
      };
      if (drawn !== undefined) {
        drawn.setTotal(total);
        drawn.update(position, shown);
      } else if (now - printedMs >= lineMs) {
        printedMs = now;
        const percent = Math.floor((100 * position) / Math.max(total, 1));
        const skips = skipped > 0 ? `, ${skipped} skipped` : '';
        terminal.printError(
          `${percent} %, ${shown.rows} ${unit}${skips}, ${shown.rate} ${unit}/s, ${left} left`,
        );
      }
    },
    stop: () => {
      drawn?.stop();
    },
  };
}

/** Writes a duration as people read it: `42 s`, `3 min 10 s`, `2 h 5 min`. */
export function formatSeconds(seconds: number): string {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min ${whole % 60} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
