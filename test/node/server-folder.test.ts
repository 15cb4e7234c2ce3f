import { mkdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { makeFolder } from '../../src/server/folder.ts';
import { startServer } from '../../src/server/index.ts';
import { temporaryDirectory } from './server-fixture.ts';

const refused = expect.objectContaining({ code: 'ERR_INLAY_STORE_IO' }) as Error;

describe('makeFolder', () => {
  it('makes a private folder and those above it', async () => {
    const path = join(await temporaryDirectory(), 'a', 'b', 'c');
    await makeFolder(path);
    expect((await stat(path)).mode & 0o777).toBe(0o700);
  });

  it('leaves a folder as it is, also when several make it at once', async () => {
    const path = join(await temporaryDirectory(), 'a');
    await mkdir(path, { mode: 0o755 });
    await Promise.all([makeFolder(path), makeFolder(join(path, 'b', 'c')), makeFolder(join(path, 'b', 'd'))]);
    expect((await stat(path)).mode & 0o777).toBe(0o755);
  });

  it('refuses a path below a file', async () => {
    const file = join(await temporaryDirectory(), 'file');
    await writeFile(file, '');
    await expect(makeFolder(join(file, 'a'))).rejects.toThrow(refused);
  });
});

describe('a server', () => {
  it.runIf(process.platform === 'linux')('refuses a data folder where none can be made', async () => {
    await expect(startServer({ port: 0, dataDir: '/proc/inlay' })).rejects.toThrow(refused);
  });
});
