import { webcrypto } from 'node:crypto';
import { open, readFile, rename } from 'node:fs/promises';
import { join } from 'node:path';
import type { Platform } from '../core/platform.ts';
import { generateKeyPair, openSigner, parseKeyFile, toKeyFile, type Signer } from '../publish/signer.ts';

/** Opens the server's own key in a data directory; creates it at first. It is readable by its owner only. */
export async function openOnlineKey(directory: string, platform: Platform): Promise<Signer> {
  const { subtle } = webcrypto;
  const path = join(directory, 'online-key.json');
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if ((error as { code?: unknown }).code !== 'ENOENT') throw error;
    text = JSON.stringify(toKeyFile(await generateKeyPair(subtle)));
    const part = `${path}.part`;
    const file = await open(part, 'w', 0o600);
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(part, path);
  }
  return openSigner({ subtle, platform }, parseKeyFile(text, path));
}
