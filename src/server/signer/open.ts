import { join } from 'node:path';
import type { Platform } from '../../core/platform.ts';
import { openOnlineKey, type KeyEnvironment } from '../online-key.ts';
import { openSignerMemory } from './memory.ts';
import { createOnlineSigner } from './online-signer.ts';
import type { OnlineSigner } from './port.ts';

/** Opens the signer of a data directory in this process: its key, and what it remembers. */
export async function openInlineSigner(
  directory: string,
  platform: Platform,
  env: KeyEnvironment,
): Promise<OnlineSigner> {
  const signer = await openOnlineKey(directory, platform, env);
  return createOnlineSigner({ signer, platform, memory: openSignerMemory(join(directory, 'signer.json')) });
}
