import { PassThrough } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { createProgress, formatSeconds, type ProgressOptions } from '../../src/cli/progress.ts';

/** A display with a clock that stands still until it is told otherwise. */
function display(bar?: ProgressOptions['bar']): {
  lines: string[];
  at: (ms: number, rows: number, skipped?: number) => void;
  stop: () => void;
} {
  let now = 0;
  const lines: string[] = [];
  const progress = createProgress({
    terminal: {
      print: () => {},
      printError: (text) => lines.push(text),
      env: {},
      cwd: '/',
      interrupted: () => new Promise(() => {}),
    },
    bar,
    monotonicMs: () => now,
  });
  return {
    lines,
    at: (ms, rows, skipped = 0) => {
      now = ms;
      progress.update({ position: 2 * rows, total: 20_000, rows, skipped });
    },
    stop: progress.stop,
  };
}

describe('progress', () => {
  it('is a line every five seconds where nobody watches', () => {
    const { lines, at } = display();
    at(0, 1000);
    at(4999, 2000);
    at(10_000, 3000);
    at(12_000, 3100);
    at(15_000, 5500, 2);
    expect(lines).toEqual([
      '30 %, 3,000 rows, 200 rows/s, 35 s left',
      '55 %, 5,500 rows, 2 skipped, 300 rows/s, 15 s left',
    ]);
  });

  it('is a bar on a terminal', () => {
    const stream = Object.assign(new PassThrough(), { isTTY: true, columns: 120 });
    const { lines, at, stop } = display(stream);
    at(0, 0);
    at(10_000, 5000);
    stop();
    expect(lines).toEqual([]);
    const drawn = String(stream.read());
    expect(drawn).toContain('50 % | 5,000 rows | 500 rows/s | 10 s left');
    expect(drawn).toContain('\u001b[?25l');
    expect(drawn).toContain('\u001b[?25h');
  });
});

it.each([
  [0.4, '0 s'],
  [59.4, '59 s'],
  [190, '3 min 10 s'],
  [7500, '2 h 5 min'],
])('formats %d seconds as %s', (seconds, text) => {
  expect(formatSeconds(seconds)).toBe(text);
});
