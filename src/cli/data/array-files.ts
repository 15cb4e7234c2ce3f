/** `.npy` and `.npz` files as rows. */
import type { FileHandle } from 'node:fs/promises';
import { basename } from 'node:path';
import { fileRange } from './byte-source.ts';
import { invalidData, misshapenData } from './faults.ts';
import { openNpy, type ArrayRows } from './npy.ts';
import type { Cell, DataFile, DataRow } from './rows.ts';
import { readZip } from './zip.ts';

/** Opens an array; its only column is called like the file. The file handle passes to the result. */
export async function openNpyFile(file: FileHandle, path: string): Promise<DataFile> {
  const name = basename(path);
  const array = await openNpy(fileRange(file, name, 0, (await file.stat()).size));
  return arrayFile(file, name, new Map([[name.replace(/\.npy$/i, ''), { array, verify: async () => {} }]]));
}

/**
 * Opens an archive of arrays, one column each. Checksums of the arrays that are read are checked before the first row.
 * The file handle passes to the result.
 */
export async function openNpzFile(file: FileHandle, path: string): Promise<DataFile> {
  const name = basename(path);
  const columns = new Map<string, Column>();
  for (const { path: member, bytes, verify } of await readZip(file, name, (await file.stat()).size)) {
    if (!/\.npy$/i.test(member)) continue;
    columns.set(member.replace(/\.npy$/i, ''), { array: await openNpy(bytes), verify });
  }
  if (columns.size === 0) throw invalidData(name, 'it holds no arrays');
  return arrayFile(file, name, columns);
}

interface Column {
  readonly array: ArrayRows;
  readonly verify: () => Promise<void>;
}

function arrayFile(file: FileHandle, name: string, arrays: ReadonlyMap<string, Column>): DataFile {
  const names = [...arrays.keys()];
  // Until columns are chosen, the longest one is as good a guess as any.
  let total = Math.max(...[...arrays.values()].map(({ array }) => array.rows));
  let position = 0;
  return {
    name,
    columns: names,
    together: names.length === 1 ? names : [],
    extent: {
      unit: 'rows',
      get total() {
        return total;
      },
      position: () => position,
    },
    rows: async function* (columns, from): AsyncIterable<DataRow> {
      const chosen = columns.map((column) => [column, arrays.get(column) as Column] as const);
      const rows = chosen[0]?.[1].array.rows ?? 0;
      for (const [column, { array, verify }] of chosen) {
        if (array.rows !== rows) {
          throw misshapenData(
            name,
            `has ${rows} rows in "${chosen[0]?.[0]}" but ${array.rows} in "${column}"`,
          );
        }
        await verify();
      }
      total = rows;
      position = from;
      const iterators = chosen.map(
        ([column, { array }]) => [column, array.read(from)[Symbol.asyncIterator]()] as const,
      );
      try {
        for (; position < rows; position += 1) {
          const cells: Record<string, Cell> = {};
          for (const [column, iterator] of iterators) {
            const item = await iterator.next();
            if (item.done === true) throw invalidData(name, `"${column}" ends in row ${position}`);
            cells[column] = { kind: 'tensor', tensor: item.value };
          }
          yield { index: position, place: `row ${position}`, cells };
        }
      } finally {
        for (const [, iterator] of iterators) await iterator.return?.();
      }
    },
    close: () => file.close(),
  };
}
