/** What the tests of the examples in pages share. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { Page } from 'playwright';
import { expect } from 'vitest';

/** An example that runs in a process of its own, as its README says. */
export interface RunningExample {
  /** What it printed first, with `--json`. */
  readonly facts: Readonly<Record<string, string>>;
  /** Presses Enter. @returns what it prints then. */
  enter(): Promise<Readonly<Record<string, string>>>;
  /** Ends it as Ctrl+C does. @returns its exit code. */
  stop(): Promise<number | null>;
}

/** Path of a file of the examples. */
export function exampleFile(path: string): string {
  return fileURLToPath(new URL(`../../examples/${path}`, import.meta.url));
}

/** Starts the `main.mjs` of an example on a free port. */
export async function startExample(name: string, ...args: readonly string[]): Promise<RunningExample> {
  const child = spawn(process.execPath, [exampleFile(`${name}/main.mjs`), '--port', '0', '--json', ...args], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
  const exited = once(child, 'exit') as Promise<[number | null]>;
  const readLine = async (): Promise<Readonly<Record<string, string>>> => {
    const { value } = (await lines.next()) as IteratorResult<string, undefined>;
    if (value === undefined) throw new Error(`${name} ended with exit code ${String((await exited)[0])}.`);
    return JSON.parse(value) as Readonly<Record<string, string>>;
  };
  return {
    facts: await readLine(),
    enter: () => {
      child.stdin.write('\n');
      return readLine();
    },
    stop: async () => {
      if (child.exitCode === null) child.kill('SIGTERM');
      return (await exited)[0];
    },
  };
}

/**
 * Digits as somebody draws them with a mouse, in few straight lines: points `x,y` in hundredths of the pad's side, `|`
 * where the pen is lifted.
 */
export const HAND: readonly string[] = [
  '50,24 36,33 32,50 36,68 50,78 64,70 69,50 64,32 51,23',
  '50,22 50,78',
  '35,36 40,25 53,22 64,30 63,43 50,58 35,77 36,77 67,77',
  '35,28 50,22 64,29 63,41 47,49 48,49 64,56 66,68 53,78 35,74',
  '57,22 43,42 30,58 31,59 50,59 72,58 | 58,40 58,79',
  '65,23 40,24 39,24 37,47 38,48 50,44 64,53 64,68 51,78 35,74',
  '60,22 44,36 36,56 39,72 51,78 63,71 63,60 53,54 42,58 37,65',
  '33,24 50,25 67,24 67,25 56,49 44,78',
  '63,29 50,22 39,30 43,42 57,53 64,65 51,78 37,68 43,54 57,43 63,32',
  '63,36 50,23 37,33 43,47 56,44 63,33 63,34 63,57 57,78',
];

/** Clears the pad and draws a digit on it with the mouse. */
export async function drawDigit(page: Page, digit: number): Promise<void> {
  const clear = page.locator('#clear');
  if (await clear.isEnabled()) await clear.click();
  const pad = await page.locator('#pad').boundingBox();
  if (pad === null) throw new Error('There is no pad.');
  const moveTo = (point: string, steps: number): Promise<void> => {
    const [x = 0, y = 0] = point.split(',').map(Number);
    return page.mouse.move(pad.x + (x / 100) * pad.width, pad.y + (y / 100) * pad.height, { steps });
  };
  for (const stroke of (HAND[digit] as string).split(' | ')) {
    const [first, ...rest] = stroke.split(' ') as [string, ...string[]];
    await moveTo(first, 1);
    await page.mouse.down();
    for (const point of rest) await moveTo(point, 2);
    await page.mouse.up();
  }
}

/** Waits until the page shows the digit as its answer. */
export async function expectAnswer(page: Page, digit: number): Promise<void> {
  await expect.poll(() => page.textContent('#answer'), { timeout: 15_000 }).toBe(String(digit));
}
