import { open, readFile, rename } from 'node:fs/promises';
import { dirname } from 'node:path';
import { StoreError } from '../../core/errors.ts';
import type { SignerMemory } from './port.ts';

/** Opens the file in which a signer remembers what it signed; it is readable by its owner only. */
export function openSignerMemory(path: string): SignerMemory {
  return {
    read: async () => {
      let text: string;
      try {
        text = await readFile(path, 'utf8');
      } catch (cause) {
        if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
        throw failed(path, cause);
      }
      try {
        return JSON.parse(text) as unknown;
      } catch {
        return null;
      }
    },
    write: async (value) => {
      const part = `${path}.part`;
      try {
        const file = await open(part, 'w', 0o600);
        try {
          await file.writeFile(JSON.stringify(value));
          await file.sync();
        } finally {
          await file.close();
        }
        await rename(part, path);
        await syncFolder(dirname(path));
      } catch (cause) {
        throw failed(path, cause);
      }
    },
  };
}

/** A rename is durable once its folder is; Windows has no such call and needs none. */
async function syncFolder(path: string): Promise<void> {
  if (process.platform === 'win32') return;
  const folder = await open(path, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

function failed(path: string, cause: unknown): StoreError {
  return (cause as NodeJS.ErrnoException).code === 'ENOSPC'
    ? new StoreError('ERR_INLAY_STORE_FULL', `There is no space left for ${path}; free some and try again.`, {
        cause,
      })
    : new StoreError('ERR_INLAY_STORE_IO', `The file ${path} cannot be used; check disk and permissions.`, {
        cause,
      });
}
