/** What a command may use of the process it runs in; tests pass their own. */

import Table from 'cli-table3';
import type { Dimension } from '../core/signature.ts';

/** The outside of a command. */
export interface Terminal {
  /** Prints one text and a line end on standard output. */
  print(text: string): void;
  /** Prints one text and a line end on standard error. */
  printError(text: string): void;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Folder that relative paths start from. */
  readonly cwd: string;
  /** Settles when the user asks a running command to stop. */
  interrupted(): Promise<void>;
  /** Asks for something that must not be shown. Absent where nobody sits at a terminal. */
  readonly askSecret?: (question: string) => Promise<string>;
}

/** Shows control characters, which could steer a terminal, as what they are; line ends and tabs stay. */
export function toPrintable(text: string): string {
  return text.replace(/[^\P{Cc}\n\t]/gu, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

/** Draws rows under a heading, without boxes. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const none = Object.fromEntries(
    ['top', 'top-mid', 'top-left', 'top-right', 'bottom', 'bottom-mid', 'bottom-left', 'bottom-right']
      .concat(['left', 'left-mid', 'mid', 'mid-mid', 'right', 'right-mid'])
      .map((name) => [name, '']),
  );
  const drawn = new Table({
    head: [...head],
    chars: { ...none, middle: '  ' },
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0 },
  });
  for (const row of rows) drawn.push([...row]);
  return drawn.toString().replace(/ +$/gm, '');
}

/** Formats a shape for people: `[batch, 3, ?]`. */
export function formatShape(shape: readonly Dimension[] | null): string {
  return shape === null ? '(unknown)' : `[${shape.map((axis) => axis ?? '?').join(', ')}]`;
}

/** Formats a number of bytes for people: `812 B`, `4.8 MB`. */
export function formatBytes(sizeBytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  const power = Math.min(units.length - 1, Math.floor(Math.log10(Math.max(1, sizeBytes)) / 3));
  const value = sizeBytes / 1000 ** power;
  return `${power === 0 ? value : value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)} ${units[power]}`;
}
