import { appendFile, mkdir, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { unzipSync } from 'fflate';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { onDisk } from '../../src/optimize-node/on-disk.ts';
import {
  runRows,
  type RunProgress,
  type RunRowsOptions,
  type RunRowsSummary,
} from '../../src/cli/data/run-rows.ts';
import { Tensor } from '../../src/core/tensor.ts';
import { createInlay } from '../../src/node.ts';
import { createGraph, encodeModel } from '../../src/onnx/index.ts';
import { nodePlatform } from '../../src/platform-node.ts';
import { bytesOf, codeOf, npy } from './cli-data-fixture.ts';
import { temporaryDirectory } from './server-fixture.ts';

/** `y = table[x]`: of four rows, so that other indices make a run fail. int64 [batch] to float32 [batch, 2]. */
function lookup(): Uint8Array<ArrayBuffer> {
  const graph = createGraph({ name: 'lookup', opset: 17 });
  graph.input('x', 'int64', ['batch']);
  graph.initializer('table', new Tensor('float32', [4, 2], Float32Array.of(0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5)));
  graph.node('Gather', ['table', 'x'], { axis: 0 }, { outputs: ['y'] });
  graph.output('y', 'float32', ['batch', 2]);
  return encodeModel(graph.toModel());
}

const { files, ...rest } = nodePlatform();
const platform = { ...rest, files: files as NonNullable<typeof files> };
const inlay = createInlay({ placement: 'inline', device: 'cpu' });
let model: Uint8Array;
beforeAll(() => {
  model = lookup();
});
afterAll(() => inlay.close());

/** A folder with a model and 40 lines of input; the n-th line asks for row n modulo 4. */
interface Place {
  readonly folder: string;
  run(options?: Partial<RunRowsOptions>): Promise<RunRowsSummary>;
  /** Runs until so many rows are done, then asks it to stop. */
  runUntil(rows: number, options?: Partial<RunRowsOptions>): Promise<RunRowsSummary>;
  output(name?: string): Promise<string>;
}

const lines = Array.from({ length: 40 }, (_, index) => `{"x": ${index % 4}}`);
const expected = `${lines.map((_, index) => `{"y":[${index % 4},${(index % 4) + 0.5}]}`).join('\n')}\n`;

function replaced(texts: readonly string[], by: Readonly<Record<number, string>>): string[] {
  return texts.map((text, index) => by[index] ?? text);
}

async function createPlace(input: string | Uint8Array = lines.join('\n'), name = 'in.jsonl'): Promise<Place> {
  const folder = await temporaryDirectory();
  const modelFile = join(folder, 'lookup.onnx');
  await writeFile(modelFile, model);
  await writeFile(join(folder, name), input);
  const run: Place['run'] = (options = {}) =>
    runRows({
      platform,
      modelFiles: [modelFile],
      openModel: () => inlay.load(modelFile, { maxBatch: 1 }),
      input: join(folder, name),
      output: join(folder, 'out.jsonl'),
      format: 'jsonl',
      mappings: [],
      concurrency: 4,
      batchRows: 1,
      settings: {},
      onError: 'stop',
      restart: false,
      checkpointMs: 0,
      signal: new AbortController().signal,
      onProgress: () => {},
      ...options,
    });
  return {
    folder,
    run,
    runUntil: (rows, options) => {
      const stop = new AbortController();
      const onProgress = (progress: RunProgress): void => {
        if (progress.rows >= rows) stop.abort();
      };
      return run({ ...options, signal: stop.signal, onProgress });
    },
    output: (file = 'out.jsonl') => readFile(join(folder, file), 'utf8'),
  };
}

describe('runRows', () => {
  it('writes the outputs of all rows in order, and nothing else', async () => {
    const place = await createPlace();
    const seen: RunProgress[] = [];
    const summary = await place.run({ onProgress: (progress) => seen.push(progress) });
    expect(summary).toEqual({ rows: 40, skipped: 0, resumedFrom: 0, isComplete: true, ignored: [] });
    expect(await place.output()).toBe(expected);
    expect((await readdir(place.folder)).sort()).toEqual(['in.jsonl', 'lookup.onnx', 'out.jsonl']);
    expect(seen.map(({ rows }) => rows)).toEqual(lines.map((_, index) => index + 1));
    expect(seen.at(-1)).toMatchObject({ position: lines.join('\n').length, total: lines.join('\n').length });
  });

  it.each([2, 3, 16, 64])('gives the same when %i rows run together', async (batchRows) => {
    const place = await createPlace();
    await place.run({ batchRows });
    expect(await place.output()).toBe(expected);
  });

  it('writes arrays with an axis of rows', async () => {
    const place = await createPlace();
    await place.run({ format: 'npz', output: join(place.folder, 'out.npz') });
    const { 'y.npy': y, ...others } = unzipSync(await readFile(join(place.folder, 'out.npz')));
    const values = lines.flatMap((_, index) => [index % 4, (index % 4) + 0.5]);
    expect(Buffer.from(y as Uint8Array)).toEqual(
      Buffer.from(npy({ descr: '<f4', shape: [40, 2], data: bytesOf(Float32Array.from(values)) })),
    );
    expect(others).toEqual({});
  });

  it('writes an empty output for an empty input', async () => {
    const place = await createPlace('');
    expect(await place.run()).toMatchObject({ rows: 0, isComplete: true });
    expect(await place.output()).toBe('');
    await place.run({ format: 'npz', output: join(place.folder, 'out.npz') });
    const { 'y.npy': y } = unzipSync(await readFile(join(place.folder, 'out.npz')));
    expect(Buffer.from(y as Uint8Array).toString('latin1')).toContain("'shape': (0, 2)");
  });

  it('has no more runs under way than allowed', async () => {
    const place = await createPlace();
    let most = 0;
    let running = 0;
    const openModel = async (): ReturnType<RunRowsOptions['openModel']> => {
      const opened = await inlay.load(model);
      return {
        ...opened,
        signature: opened.signature,
        run: (...args: Parameters<typeof opened.run>) => {
          most = Math.max(most, (running += 1));
          return opened.run(...args).finally(() => (running -= 1));
        },
      };
    };
    await place.run({ concurrency: 3, openModel });
    expect(await place.output()).toBe(expected);
    expect(most).toBe(3);
  });

  it('replaces an earlier output only when the new one is whole', async () => {
    const place = await createPlace();
    await writeFile(join(place.folder, 'out.jsonl'), 'earlier');
    expect(await place.runUntil(10)).toMatchObject({ isComplete: false });
    expect(await place.output()).toBe('earlier');
    await place.run();
    expect(await place.output()).toBe(expected);
  });
});

describe('a bad row', () => {
  const bad = replaced(lines, { 7: '{"x": "seven"}', 8: '{"x"', 20: '{"x": 4}' });

  it('ends the run, which says where, and goes on there', async () => {
    const place = await createPlace(bad.join('\n'));
    await expect(place.run()).rejects.toMatchObject({
      code: 'ERR_INLAY_FEED_VALUE',
      message: expect.stringMatching(/^Line 8 of in\.jsonl: Input x: int64 \[batch\]: /) as unknown,
    });
    expect(await place.run({ onError: 'skip' })).toMatchObject({ rows: 40, skipped: 3, resumedFrom: 7 });
  });

  it('ends the run with its place when the run itself fails', async () => {
    const place = await createPlace(replaced(lines, { 20: '{"x": 4}' }).join('\n'));
    await expect(place.run()).rejects.toMatchObject({
      code: 'ERR_INLAY_RUN_FAILED',
      message: expect.stringMatching(/^Line 21 of in\.jsonl: /) as unknown,
    });
  });

  it.each([1, 4, 64])(
    'is skipped on demand and listed with its reason, %i rows together',
    async (batchRows) => {
      const place = await createPlace(bad.join('\n'));
      const summary = await place.run({ onError: 'skip', batchRows });
      const skippedList = join(place.folder, 'out.jsonl.skipped');
      expect(summary).toEqual({
        rows: 40,
        skipped: 3,
        resumedFrom: 0,
        isComplete: true,
        ignored: [],
        skippedList,
      });
      const wanted = replaced(expected.split('\n'), { 7: 'null', 8: 'null', 20: 'null' });
      expect(await place.output()).toBe(wanted.join('\n'));
      const list = (await place.output('out.jsonl.skipped')).trimEnd().split('\n');
      expect(list.map((line) => JSON.parse(line) as unknown)).toMatchObject([
        { row: 7, place: 'line 8', code: 'ERR_INLAY_FEED_VALUE' },
        {
          row: 8,
          place: 'line 9',
          code: 'ERR_INLAY_FEED_VALUE',
          reason: 'Line 9 of in.jsonl cannot be read: it is no JSON.',
        },
        { row: 20, place: 'line 21', code: 'ERR_INLAY_RUN_FAILED' },
      ]);
      await writeFile(join(place.folder, 'in.jsonl'), lines.join('\n'));
      await place.run({ onError: 'skip' });
      expect(await readdir(place.folder)).not.toContain('out.jsonl.skipped');
    },
  );

  it('is missing from arrays, which then say which rows they have', async () => {
    const place = await createPlace(bad.join('\n'));
    await place.run({ onError: 'skip', format: 'npz', output: join(place.folder, 'out.npz') });
    const { 'row_index.npy': index } = unzipSync(await readFile(join(place.folder, 'out.npz')));
    const kept = lines.map((_, row) => row).filter((row) => ![7, 8, 20].includes(row));
    expect(Buffer.from(index as Uint8Array)).toEqual(
      Buffer.from(npy({ descr: '<i8', shape: [37], data: bytesOf(BigInt64Array.from(kept, BigInt)) })),
    );
  });

  it('at the very beginning leaves nothing behind', async () => {
    const place = await createPlace(replaced(lines, { 0: '{"x": 9}' }).join('\n'));
    expect(await codeOf(() => place.run())).toBe('ERR_INLAY_RUN_FAILED');
    expect((await readdir(place.folder)).sort()).toEqual(['in.jsonl', 'lookup.onnx']);
  });
});

describe('a run that was interrupted', () => {
  it('goes on where it stopped', async () => {
    const place = await createPlace();
    const first = await place.runUntil(10);
    expect(first).toMatchObject({ isComplete: false, resumedFrom: 0 });
    expect(first.rows).toBeLessThan(40);
    const ran: number[] = [];
    const second = await place.run({ onProgress: ({ rows }) => ran.push(rows) });
    expect(second).toMatchObject({ isComplete: true, rows: 40, resumedFrom: first.rows });
    expect(ran[0]).toBe(first.rows + 1);
    expect(await place.output()).toBe(expected);
  });

  it.each(['jsonl', 'npz'] as const)(
    'gives the same %s, however its last writes were torn',
    async (format) => {
      const batchRows = 3;
      const bad = replaced(lines, { 5: '{"x": -9}', 30: '{' }).join('\n');
      const reference = await createPlace(bad);
      const name = `out.${format}`;
      await reference.run({ onError: 'skip', batchRows, format, output: join(reference.folder, name) });
      const whole = await readFile(join(reference.folder, name));
      const list = await reference.output(`${name}.skipped`);
      await fc.assert(
        fc.asyncProperty(
          fc.integer({ min: 1, max: 40 }),
          fc.nat(400),
          fc.nat(30),
          async (rows, cut, torn) => {
            const place = await createPlace(bad);
            const options = { onError: 'skip', batchRows, format, output: join(place.folder, name) } as const;
            await place.runUntil(rows, options);
            const progress = join(place.folder, `${name}.progress`);
            const left = await readdir(progress).catch(() => []);
            for (const file of left) {
              if (file === 'journal.jsonl') {
                const { length } = await readFile(join(progress, file));
                await truncate(join(progress, file), Math.max(0, length - cut));
              } else await appendFile(join(progress, file), 'x'.repeat(torn));
            }
            await place.run(options);
            expect((await readFile(join(place.folder, name))).equals(whole)).toBe(true);
            expect(await place.output(`${name}.skipped`)).toBe(list);
            expect(await readdir(place.folder)).not.toContain(`${name}.progress`);
          },
        ),
        { numRuns: 30 },
      );
    },
  );

  it('does not go on with another input, model or options', async () => {
    const place = await createPlace();
    await place.runUntil(10);
    const run = (options?: Partial<RunRowsOptions>): Promise<string> => codeOf(() => place.run(options));
    expect(await run({ batchRows: 2 })).toBe('ERR_INLAY_STORE_MISMATCH');
    expect(await run({ settings: { '--device': 'gpu' } })).toBe('ERR_INLAY_STORE_MISMATCH');
    await appendFile(join(place.folder, 'lookup.onnx'), Uint8Array.of(0x3a, 0));
    expect(await run()).toBe('ERR_INLAY_STORE_MISMATCH');
    await writeFile(join(place.folder, 'lookup.onnx'), model);
    await appendFile(join(place.folder, 'in.jsonl'), '\n{"x": 1}');
    await expect(place.run()).rejects.toThrow(
      /^The unfinished run in .*out\.jsonl\.progress differs in input; .*--restart\.$/,
    );
    expect(await place.run({ restart: true })).toMatchObject({ rows: 41, resumedFrom: 0 });
  });

  it('begins anew on demand', async () => {
    const place = await createPlace();
    await place.runUntil(10);
    expect(await place.run({ restart: true })).toMatchObject({ rows: 40, resumedFrom: 0 });
    expect(await place.output()).toBe(expected);
  });

  it('does not go on from files that are shorter than they were', async () => {
    const place = await createPlace();
    await place.runUntil(10);
    await truncate(join(place.folder, 'out.jsonl.progress', 'rows.jsonl'), 3);
    expect(await codeOf(() => place.run())).toBe('ERR_INLAY_STORE_MISMATCH');
  });

  it('only has to move its output if it was interrupted after the last row', async () => {
    const place = await createPlace();
    // The output cannot be replaced by a file while it is a folder.
    await mkdir(join(place.folder, 'out.jsonl'));
    expect(await codeOf(() => place.run())).toBe('ERR_INLAY_STORE_IO');
    await rm(join(place.folder, 'out.jsonl'), { recursive: true });
    expect(await place.run()).toMatchObject({ rows: 40, resumedFrom: 40, isComplete: true });
    expect(await place.output()).toBe(expected);
    expect(await readdir(place.folder)).not.toContain('out.jsonl.progress');
  });
});

describe('the folder of a run', () => {
  it('belongs to one process', async () => {
    const place = await createPlace();
    await place.runUntil(10);
    const lock = join(place.folder, 'out.jsonl.progress', 'lock');
    await writeFile(lock, String(process.ppid));
    await expect(place.run()).rejects.toThrow(`Process ${process.ppid} writes the same output`);
    // No process has this number: the one that had it is dead.
    await writeFile(lock, '4194305');
    expect(await place.run()).toMatchObject({ isComplete: true });
  });

  it('has to be writable', async () => {
    const place = await createPlace();
    const output = join(place.folder, 'missing', 'out.jsonl');
    expect(await codeOf(() => place.run({ output }))).toBe('ERR_INLAY_STORE_IO');
    await writeFile(join(place.folder, 'out.jsonl.progress'), 'a file');
    expect(await codeOf(() => place.run())).toBe('ERR_INLAY_STORE_IO');
  });

  it.each([
    ['ENOSPC', 'ERR_INLAY_STORE_FULL'],
    ['EROFS', 'ERR_INLAY_STORE_READ_ONLY'],
    ['EIO', 'ERR_INLAY_STORE_IO'],
  ])('turns %s into %s', async (system, code) => {
    const work = (): Promise<never> => Promise.reject(Object.assign(new Error(system), { code: system }));
    expect(await codeOf(() => onDisk('out.jsonl', work))).toBe(code);
  });
});

describe('an input', () => {
  it('that changes while it is read is refused', async () => {
    const place = await createPlace();
    const openModel: RunRowsOptions['openModel'] = async () => {
      await appendFile(join(place.folder, 'in.jsonl'), '\n');
      return inlay.load(model);
    };
    expect(await codeOf(() => place.run({ openModel }))).toBe('ERR_INLAY_FEED_VALUE');
    expect(await readdir(place.folder)).not.toContain('out.jsonl');
  });

  it('may be an array of another dtype', async () => {
    const data = Uint8Array.from(lines, (_, index) => index % 4);
    const place = await createPlace(npy({ descr: '|u1', shape: [40], data }), 'in.npy');
    let most = 0;
    const onProgress = ({ rows, position }: RunProgress): void => {
      most = Math.max(most, position - rows);
    };
    await place.run({ onProgress });
    expect(await place.output()).toBe(expected);
    // No row is read long before its turn.
    expect(most).toBeLessThanOrEqual(5);
  });
});
