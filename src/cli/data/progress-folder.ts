/**
 * What an unfinished run leaves beside its output: a folder with the rows so far, and a journal that says up to where
 * they count. A run that was killed at any moment goes on from the last line of the journal that is whole.
 */
import { mkdir, open, readFile, rename, rm, stat, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { fromUtf8, toUtf8 } from '../../core/bytes.ts';
import { StoreError } from '../../core/errors.ts';
import { onDisk } from '../../optimize-node/on-disk.ts';
import { openAppendFile, type AppendFile } from './disk.ts';

/** What makes two runs the same run: one value each, compared as text. */
export type RunIdentity = Readonly<Record<string, string>>;

/** A state to which a run can go back. */
export interface Checkpoint {
  /** Rows of the input that are dealt with. */
  readonly rows: number;
  readonly skipped: number;
  /** Bytes of each file of the folder. */
  readonly files: Readonly<Record<string, number>>;
  /** What the writer of the output wants to know again. */
  readonly writer: unknown;
  /** All rows are dealt with; what is left is to put the output in its place. */
  readonly isComplete?: true;
}

/** The folder of a run. No other process has it open. */
export interface ProgressFolder {
  /** Where to go on; `undefined` for a run that begins. */
  readonly checkpoint: Checkpoint | undefined;
  /** Opens a file of the folder, cut to the length that it had at the checkpoint. */
  file(name: string): Promise<AppendFile>;
  path(name: string): string;
  /** Makes what was appended so far, to all files, the state to go back to. */
  commit(state: Omit<Checkpoint, 'files'>): Promise<void>;
  /** Moves a file of the folder to its place outside; does nothing if that was done before. */
  moveOut(name: string, to: string): Promise<void>;
  /** Removes the folder. */
  remove(): Promise<void>;
  /** Closes all files and gives the folder free. */
  close(): Promise<void>;
}

const journalName = 'journal.jsonl';
const lockName = 'lock';

/**
 * Opens the folder of a run, and makes it if need be.
 * @param restart forgets what an earlier run left.
 * @throws {@link StoreError} `ERR_INLAY_STORE_MISMATCH` if an unfinished run was of another identity or another process
 * is at it, `ERR_INLAY_STORE_FULL`, `_READ_ONLY` or `_IO` if the folder cannot be written.
 */
export async function openProgressFolder(
  path: string,
  identity: RunIdentity,
  restart: boolean,
): Promise<ProgressFolder> {
  const at = (name: string): string => join(path, name);
  await onDisk(path, async () => {
    if (!(await exists(path))) await mkdir(path);
  });
  await lock(at(lockName));
  const files = new Map<string, AppendFile>();
  try {
    const found = restart ? undefined : await readJournal(at(journalName));
    // Where nothing was done, nothing can disagree.
    const before = found?.checkpoint === undefined ? undefined : found;
    if (before !== undefined) assertSame(path, before.identity, identity);
    const journal = await openAppendFile(at(journalName), before?.sizeBytes ?? 0);
    files.set(journalName, journal);
    if (before === undefined) {
      await journal.append(toLine(identity));
      await journal.sync();
    }
    const checkpoint = before?.checkpoint;
    return {
      checkpoint,
      file: async (name) => {
        const file = await openAppendFile(at(name), checkpoint?.files[name] ?? 0);
        files.set(name, file);
        return file;
      },
      path: at,
      commit: async (state) => {
        const sizes: Record<string, number> = {};
        for (const [name, file] of files) {
          if (name === journalName) continue;
          await file.sync();
          sizes[name] = file.sizeBytes;
        }
        await journal.append(toLine({ ...state, files: sizes }));
        await journal.sync();
      },
      moveOut: (name, to) =>
        onDisk(to, async () => {
          if (await exists(at(name))) await rename(at(name), to);
        }),
      remove: () => onDisk(path, () => rm(path, { recursive: true, force: true })),
      close: async () => {
        for (const file of files.values()) await file.close();
        await unlink(at(lockName)).catch(() => {});
      },
    };
  } catch (error) {
    for (const file of files.values()) await file.close();
    await unlink(at(lockName)).catch(() => {});
    throw error;
  }
}

interface Journal {
  readonly identity: RunIdentity;
  readonly checkpoint: Checkpoint | undefined;
  /** Bytes of the lines that are whole. */
  readonly sizeBytes: number;
}

/** Reads the journal up to its last whole line; `undefined` if it does not even have a first one. */
async function readJournal(path: string): Promise<Journal | undefined> {
  const bytes = await onDisk(path, async () =>
    (await exists(path)) ? await readFile(path) : new Uint8Array(),
  );
  let identity: RunIdentity | undefined;
  let checkpoint: Checkpoint | undefined;
  let end = 0;
  for (let feed = bytes.indexOf(10); feed >= 0; feed = bytes.indexOf(10, end)) {
    const line = parseLine(bytes.subarray(end, feed));
    if (line === undefined) break;
    if (identity === undefined) identity = line as RunIdentity;
    else checkpoint = line as Checkpoint;
    end = feed + 1;
  }
  return identity && { identity, checkpoint, sizeBytes: end };
}

function parseLine(bytes: Uint8Array): object | undefined {
  try {
    const value: unknown = JSON.parse(fromUtf8(bytes));
    return typeof value === 'object' && value !== null ? value : undefined;
  } catch {
    return undefined;
  }
}

function toLine(value: unknown): Uint8Array {
  return toUtf8(`${JSON.stringify(value)}\n`);
}

function assertSame(path: string, before: RunIdentity, now: RunIdentity): void {
  const changed = [...new Set([...Object.keys(before), ...Object.keys(now)])].filter(
    (key) => before[key] !== now[key],
  );
  if (changed.length === 0) return;
  throw new StoreError(
    'ERR_INLAY_STORE_MISMATCH',
    `The unfinished run in ${path} differs in ${changed.join(', ')}; bring that back to go on, or begin anew with --restart.`,
    { details: { changed } },
  );
}

async function lock(path: string): Promise<void> {
  for (;;) {
    const taken = await onDisk(path, async () => {
      try {
        const file = await open(path, 'wx');
        await file.writeFile(String(process.pid));
        await file.close();
        return true;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
        throw error;
      }
    });
    if (taken) return;
    const owner = Number(await readFile(path, 'utf8').catch(() => ''));
    if (isAlive(owner)) {
      throw new StoreError(
        'ERR_INLAY_STORE_MISMATCH',
        `Process ${owner} writes the same output; wait for it. If it is no run of inlay, delete ${path}.`,
      );
    }
    await unlink(path).catch(() => {});
  }
}

/** In containers, the process that was killed and the one that goes on often have the same number. */
function isAlive(pid: number): boolean {
  if (!Number.isSafeInteger(pid) || pid <= 0 || pid === process.pid) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}
