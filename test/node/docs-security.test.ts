import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';

const page = join(import.meta.dirname, '../../docs/security.md');

/** Rows of the table of threats, and the files that its links stand for. */
async function readThreats(): Promise<{ rows: string[]; files: Map<string, string> }> {
  const text = await readFile(page, 'utf8');
  const files = new Map<string, string>();
  for (const [, name = '', path = ''] of text.matchAll(/^\[([^\]]+)\]: (\S+)$/gm)) {
    files.set(name, await readFile(join(dirname(page), path), 'utf8'));
  }
  return { rows: text.split('\n').filter((line) => line.startsWith('| **')), files };
}

describe('the table of threats', () => {
  it('names a test that there is, or claims nothing, in every row', async () => {
    const { rows, files } = await readThreats();
    expect(rows.length).toBeGreaterThan(12);
    const missing: string[] = [];
    for (const row of rows) {
      const shown = row.split(' | ').at(-1) ?? '';
      const lists = [...shown.matchAll(/\[([^\]]+)\]: ((?:`[^`]+`(?:, )?)+)/g)];
      if (lists.length === 0) expect(shown).toBe('nothing is claimed |');
      for (const [, link = '', names = ''] of lists) {
        const source = files.get(link) ?? '';
        for (const [, name = ''] of names.matchAll(/`([^`]+)`/g)) {
          const isThere = ["'", '"', '`'].some((quote) => source.includes(`${quote}${name}${quote}`));
          if (!isThere) missing.push(`${link}: ${name}`);
        }
      }
    }
    expect(missing).toEqual([]);
  });
});
