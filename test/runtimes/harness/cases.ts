/** Runs a bundle of tests in another runtime, and turns each case into a test of vitest. */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { describe, expect, it } from 'vitest';
import type { Case } from './vitest.ts';

/** Begins a record among whatever else a program prints (RFC 7464 §2.2). */
export const RECORD = '\u001E';

/** How a run in another runtime ended. */
export interface Played {
  readonly cases: readonly Case[];
  /** Why it ended too early, if it did. */
  readonly fault?: string;
}

/** Options of {@link playProgram}. */
export interface ProgramOptions {
  readonly cwd: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Milliseconds without a further case after which it is ended. */
  readonly stallMs: number;
}

/** Starts a program that prints one record per case, and an empty one at the end. */
export function playProgram(
  program: string,
  args: readonly string[],
  { cwd, env, stallMs }: ProgramOptions,
): Promise<Played> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      cwd,
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const end = (): void => void child.kill('SIGKILL');
    let timer = setTimeout(end, stallMs);
    const cases: Case[] = [];
    let isComplete = false;
    let tail = '';
    const keep = (text: string): void => {
      tail = (tail + text).slice(-4000);
    };
    createInterface({ input: child.stdout }).on('line', (line) => {
      clearTimeout(timer);
      timer = setTimeout(end, stallMs);
      const parsed = parseRecord(line);
      if (parsed === undefined) keep(`${line}\n`);
      else if (parsed === 'end') isComplete = true;
      else cases.push(parsed);
    });
    child.stderr.setEncoding('utf8').on('data', keep);
    child.on('error', reject);
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      const isClean = isComplete && code === 0;
      resolve({ cases, ...(!isClean && { fault: `It ended with ${signal ?? code}: ${tail}` }) });
    });
  });
}

/** Reads a line that may be a record. @returns the case, that all are through, or that it is something else. */
export function parseRecord(line: string): Case | 'end' | undefined {
  if (!line.startsWith(RECORD)) return undefined;
  const text = line.slice(1);
  return text === '' ? 'end' : (JSON.parse(text) as Case);
}

/** Titles of cases that do not hold in a runtime, with the reason. */
export type Exceptions = Readonly<Record<string, string>>;

/**
 * Registers one test per case.
 * @param atLeast - how many cases there are, so that an empty run fails.
 */
export function reportCases(
  title: string,
  { cases, fault }: Played,
  atLeast: number,
  exceptions: Exceptions = {},
): void {
  describe(title, () => {
    it('runs to the end', () => {
      expect(fault).toBeUndefined();
      expect(cases.filter(({ outcome }) => outcome === 'passed').length).toBeGreaterThanOrEqual(atLeast);
    });
    for (const [file, own] of groupByFile(cases)) {
      describe(file, () => {
        for (const { path, outcome, error } of own) {
          const reason = exceptions[path.at(-1) as string];
          const name = path.join(' > ') + (reason === undefined ? '' : ` (${reason})`);
          it.skipIf(outcome === 'skipped' || reason !== undefined)(name, () => {
            if (outcome === 'failed') throw new Error(error ?? 'It failed without a reason.');
          });
        }
      });
    }
  });
}

function groupByFile(cases: readonly Case[]): Map<string, Case[]> {
  const groups = new Map<string, Case[]>();
  for (const each of cases) {
    const group = groups.get(each.file);
    if (group === undefined) groups.set(each.file, [each]);
    else group.push(each);
  }
  return groups;
}
