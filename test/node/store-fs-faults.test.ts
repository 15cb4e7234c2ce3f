import { mkdtemp, readdir, rm } from 'node:fs/promises';
import * as nodeFs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { fromUtf8, toUtf8 } from '../../src/core/bytes.ts';
import type { Store } from '../../src/core/store.ts';
import { openFsStore, type FileSystem } from '../../src/stores/fs.ts';
import { inPieces, nameOf } from '../conformance/store.ts';
import { fakeHost, faultyFs, volatileFs, type PowerCut } from './store-fs-faults.ts';

const content = toUtf8('the weights of a small model');
const sha256 = nameOf(content);
const base = '/volatile';

/** What is interrupted, and which states of the store are whole: `old` before, `new` after. */
const operations = {
  putBlob: {
    prepare: async () => {},
    run: (store: Store) => store.putBlob(sha256, inPieces(content, 10)),
    look: async (store: Store): Promise<string> => {
      const blob = await store.blob(sha256);
      if (!blob) return 'old';
      return fromUtf8(await blob.bytes()) === fromUtf8(content) ? 'new' : 'torn';
    },
  },
  updateRecord: {
    prepare: async (store: Store) => {
      for (const text of ['older', 'old']) await store.updateRecord('slots', () => toUtf8(text));
    },
    run: (store: Store) => store.updateRecord('slots', () => toUtf8('new')),
    look: async (store: Store): Promise<string> => fromUtf8((await store.readRecord('slots'))!),
  },
  'the first updateRecord': {
    prepare: async () => {},
    run: (store: Store) => store.updateRecord('slots', () => toUtf8('new')),
    look: async (store: Store): Promise<string> => {
      const bytes = await store.readRecord('slots');
      return bytes ? fromUtf8(bytes) : 'old';
    },
  },
};

const cases = Object.entries(operations);

async function inDirectory(task: (directory: string) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'inlay-store-'));
  try {
    await task(directory);
  } finally {
    await rm(directory, { recursive: true });
  }
}

/** Runs `attempt` with a fault at step 0, 1, 2, … until it takes fewer steps than that. */
async function atEveryStep(
  attempt: (step: number) => Promise<{ steps: readonly string[] }>,
): Promise<number> {
  for (let step = 0; ; step += 1) {
    const { steps } = await attempt(step);
    if (steps.length <= step) return step;
  }
}

describe.each(cases)('%s', (_, operation) => {
  it.each(['ENOSPC', 'EIO', 'EROFS'])(
    'that meets %s at any step leaves the old or the new content, cleans up, and succeeds when tried again',
    async (errno) => {
      const code = { ENOSPC: 'FULL', EROFS: 'READ_ONLY' }[errno] ?? 'IO';
      const count = await atEveryStep(async (step) => {
        let steps: readonly string[] = [];
        await inDirectory(async (directory) => {
          await operation.prepare(openFsStore({ directory }));
          let armed = true;
          const fs = faultyFs(nodeFs, (i) => (armed && i === step ? errno : undefined));
          const store = openFsStore({ directory, fs, host: fakeHost(1) });
          const failure = await operation.run(store).then(
            () => undefined,
            (error: unknown) => error,
          );
          const { length } = fs.steps;
          armed = false;
          if (failure !== undefined) {
            expect(failure).toMatchObject({
              code: `ERR_INLAY_STORE_${code}`,
              message: expect.stringMatching(`${directory}.*INLAY_CACHE_DIR`),
            });
          }
          const fresh = openFsStore({ directory });
          expect(failure === undefined ? ['new'] : ['old', 'new']).toContain(await operation.look(fresh));
          if (fs.steps[step] !== 'mkdir')
            expect(await readdir(join(directory, 'tmp')).catch(() => [])).toEqual([]);
          await operation.run(store);
          expect(await operation.look(fresh)).toBe('new');
          steps = fs.steps.slice(0, length);
        });
        return { steps };
      });
      expect(count).toBeGreaterThan(10);
    },
  );

  it('on a disk that stays full leaves the old content and no leftovers', async () => {
    const grows = ['mkdir', 'open wx', 'write', 'sync'];
    await atEveryStep(async (step) => {
      let fs = faultyFs(nodeFs, () => undefined);
      await inDirectory(async (directory) => {
        await operation.prepare(openFsStore({ directory }));
        fs = faultyFs(nodeFs, (i, name) => (i >= step && grows.includes(name) ? 'ENOSPC' : undefined));
        await operation.run(openFsStore({ directory, fs, host: fakeHost(1) })).catch(() => undefined);
        expect(['old', 'new']).toContain(await operation.look(openFsStore({ directory })));
        expect(await readdir(join(directory, 'tmp')).catch(() => [])).toEqual([]);
        expect(await readdir(join(directory, 'records')).catch(() => [])).not.toContain('slots.lock');
      });
      return fs;
    });
  });

  it('that crashes at any step leaves the old or the new content, and the next process succeeds', async () => {
    await atEveryStep(async (step) => {
      let fs = faultyFs(nodeFs, () => undefined);
      await inDirectory(async (directory) => {
        await operation.prepare(openFsStore({ directory }));
        fs = faultyFs(nodeFs, (i) => (i === step ? 'crash' : undefined));
        await operation.run(openFsStore({ directory, fs, host: fakeHost(1) })).catch(() => undefined);
        const next = openFsStore({ directory, host: fakeHost(2) });
        expect(['old', 'new']).toContain(await operation.look(next));
        await operation.run(next);
        expect(await operation.look(next)).toBe('new');
      });
      return fs;
    });
  });

  describe.each<PowerCut>([
    'loses all',
    'keeps names only',
    'keeps names and half the data',
    'keeps names and the other half of the data',
  ])('on a disk that in a power cut %s that was not flushed', (how) => {
    const crashedAt = async (step: number) => {
      const disk = volatileFs(base);
      await operation.prepare(openFsStore({ directory: base, fs: disk, host: fakeHost(1) }));
      const fs = faultyFs(disk, (i) => (i === step ? 'crash' : undefined));
      const failed = await operation.run(openFsStore({ directory: base, fs, host: fakeHost(1) })).then(
        () => false,
        () => true,
      );
      return { disk, failed, steps: fs.steps };
    };
    const reopen = (fs: FileSystem): Store => openFsStore({ directory: base, fs, host: fakeHost(2) });

    it('leaves the old or the new content when the power is cut at any step', async () => {
      await atEveryStep(async (step) => {
        const { disk, failed, steps } = await crashedAt(step);
        disk.powerCut(how);
        expect(failed ? ['old', 'new'] : ['new']).toContain(await operation.look(reopen(disk)));
        await operation.run(reopen(disk));
        expect(await operation.look(reopen(disk))).toBe('new');
        return { steps };
      });
    });

    it('keeps what the next process wrote after a crash at any step', async () => {
      await atEveryStep(async (step) => {
        const { disk, steps } = await crashedAt(step);
        await operation.run(reopen(disk));
        disk.powerCut(how);
        expect(await operation.look(reopen(disk))).toBe('new');
        return { steps };
      });
    });
  });
});

it('a blob that another process put in place is flushed before putBlob returns', async () => {
  const disk = volatileFs(base);
  const first = faultyFs(disk, (_, name) =>
    first.steps.includes('rename') && name === 'open r' ? 'crash' : undefined,
  );
  await openFsStore({ directory: base, fs: first })
    .putBlob(sha256, content)
    .catch(() => undefined);
  const store = openFsStore({ directory: base, fs: disk });
  expect((await store.blob(sha256))?.sizeBytes).toBe(content.length);
  await store.putBlob(sha256, content);
  disk.powerCut('loses all');
  expect(await (await store.blob(sha256))?.bytes()).toEqual(content);
});

describe('an abandoned lock', () => {
  const increment = (present: Uint8Array | undefined): Uint8Array =>
    toUtf8(String(Number(present ? fromUtf8(present) : 0) + 1));
  const lockOf = (pid: number, machine = 'test-machine'): Uint8Array =>
    toUtf8(JSON.stringify({ pid, machine, token: 'left behind' }));

  const leave = async (fs: FileSystem, bytes: Uint8Array): Promise<void> => {
    await fs.mkdir(join(base, 'records')).catch(() => undefined);
    const file = await fs.open(join(base, 'records', 'count.lock'), 'wx');
    await file.writeFile(bytes);
    await file.close();
  };

  it('of a dead process of this machine is broken at once', async () => {
    const disk = volatileFs(base);
    await leave(disk, lockOf(7));
    const host = fakeHost(1);
    await openFsStore({ directory: base, fs: disk, host }).updateRecord('count', increment);
    expect(host.monotonicMs?.()).toBeLessThan(100);
    expect(await disk.readdir(join(base, 'records'))).toEqual(['count.1']);
  });

  it.each<[string, Uint8Array, number]>([
    ['of a pid that lives', lockOf(7), 10_000],
    ['of this very pid', lockOf(1), 10_000],
    ['of another machine', lockOf(9, 'elsewhere'), 10_000],
    // Its owner died before it could write.
    ['that names nobody', toUtf8('{}'), 500],
    ['that is empty', new Uint8Array(), 500],
    ['that is not text', Uint8Array.of(0xff, 0xfe), 500],
  ])('%s is broken after some time without change', async (_, bytes, ms) => {
    const disk = volatileFs(base);
    await leave(disk, bytes);
    const host = fakeHost(1, [1, 7]);
    await openFsStore({ directory: base, fs: disk, host }).updateRecord('count', increment);
    expect(host.monotonicMs?.()).toBeGreaterThan(ms);
    expect(host.monotonicMs?.()).toBeLessThan(ms + 1000);
  });

  it.each([
    [
      'what it says',
      (turn: number) => ({ text: JSON.stringify({ pid: 7, machine: 'elsewhere', turn }), mtimeMs: 0 }),
    ],
    [
      'its time, while its owners have not written to it yet',
      (turn: number) => ({ text: '', mtimeMs: turn }),
    ],
  ])('is told by %s from one that changes hands, for which an update waits 15 seconds', async (_, lock) => {
    const disk = volatileFs(base);
    let turn = 0;
    await leave(disk, lockOf(7));
    const busy: FileSystem = {
      ...disk,
      stat: async (path) => {
        turn += 1;
        return { ...(await disk.stat(path)), mtimeMs: lock(turn).mtimeMs };
      },
      readFile: async (path) => (path.endsWith('.lock') ? toUtf8(lock(turn).text) : disk.readFile(path)),
    };
    const host = fakeHost(1, [1, 7]);
    const update = openFsStore({ directory: base, fs: busy, host }).updateRecord('count', increment);
    await expect(update).rejects.toMatchObject({
      code: 'ERR_INLAY_STORE_IO',
      message: expect.stringContaining(join(base, 'records', 'count.lock')),
    });
    expect(host.monotonicMs?.()).toBeGreaterThan(15_000);
    expect(await disk.readdir(join(base, 'records'))).toEqual(['count.lock']);
  });

  it('that is broken while its owner lives makes the owner start over', async () => {
    const disk = volatileFs(base);
    const other = openFsStore({ directory: base, fs: disk, host: fakeHost(2, [1]) });
    let taken = false;
    const slow: FileSystem = {
      ...disk,
      open: async (path, flags) => {
        // The owner has read the record and is about to write what it made of it.
        if (path.includes('tmp') && !taken) {
          taken = true;
          await other.updateRecord('count', increment);
        }
        return disk.open(path, flags);
      },
    };
    let runs = 0;
    await openFsStore({ directory: base, fs: slow, host: fakeHost(1) }).updateRecord('count', (present) => {
      runs += 1;
      return increment(present);
    });
    expect(runs).toBe(2);
    expect(fromUtf8((await other.readRecord('count'))!)).toBe('2');
    expect(await disk.readdir(join(base, 'tmp'))).toEqual([]);
    expect([...(await disk.readdir(join(base, 'records')))].sort()).toEqual(['count.0', 'count.1']);
  });

  it('that is broken while its owner lives leaves the owner no right to the next lock', async () => {
    const disk = volatileFs(base);
    const lock = join(base, 'records', 'count.lock');
    let taken = false;
    const slow: FileSystem = {
      ...disk,
      open: async (path, flags) => {
        if (path.includes('tmp') && !taken) {
          taken = true;
          await disk.unlink(lock);
          await leave(disk, lockOf(2));
        }
        return disk.open(path, flags);
      },
    };
    let waits = 0;
    const host = {
      ...fakeHost(1, [1, 2]),
      pause: async () => {
        waits += 1;
        expect(await disk.readFile(lock)).toEqual(lockOf(2));
        expect(await disk.readdir(join(base, 'records'))).toEqual(['count.lock']);
        await disk.unlink(lock);
      },
    };
    await openFsStore({ directory: base, fs: slow, host }).updateRecord('count', increment);
    expect(waits).toBe(1);
    expect(await disk.readdir(join(base, 'records'))).toEqual(['count.1']);
  });

  it('is broken once, however the steps of several processes interleave', async () => {
    const property = fc.asyncProperty(fc.scheduler(), async (scheduler) => {
      const disk = volatileFs(base);
      await leave(disk, lockOf(7));
      const pids = [1, 2, 3];
      let runs = 0;
      const done = pids.map(async (pid) => {
        const turn = scheduler.scheduleFunction(async () => {});
        const fs = interleaved(disk, turn);
        // Time stands still: nobody may take a process for dead only because its turn comes late.
        const host = { ...fakeHost(pid, pids), pause: () => turn() };
        await openFsStore({ directory: base, fs, host }).updateRecord('count', (present) => {
          runs += 1;
          return increment(present);
        });
      });
      await scheduler.waitFor(Promise.all(done));
      const store = openFsStore({ directory: base, fs: disk });
      expect(fromUtf8((await store.readRecord('count'))!)).toBe('3');
      // More runs would mean that a lock was broken whose owner lives.
      expect(runs).toBe(3);
    });
    await fc.assert(property, { numRuns: 200 });
  });
});

/** A file system whose every step waits for its turn. */
function interleaved(fs: FileSystem, turn: () => Promise<void>): FileSystem {
  return {
    mkdir: (path) => turn().then(() => fs.mkdir(path)),
    open: async (path, flags) => {
      await turn();
      const file = await fs.open(path, flags);
      return {
        writeFile: (bytes) => turn().then(() => file.writeFile(bytes)),
        read: (...range) => turn().then(() => file.read(...range)),
        write: (...range) => turn().then(() => file.write(...range)),
        truncate: (sizeBytes) => turn().then(() => file.truncate(sizeBytes)),
        sync: () => turn().then(() => file.sync()),
        close: () => turn().then(() => file.close()),
      };
    },
    readFile: (path) => turn().then(() => fs.readFile(path)),
    readdir: (path) => turn().then(() => fs.readdir(path)),
    rename: (from, to) => turn().then(() => fs.rename(from, to)),
    stat: (path) => turn().then(() => fs.stat(path)),
    unlink: (path) => turn().then(() => fs.unlink(path)),
  };
}
