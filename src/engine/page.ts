/** Pages in the store: what was measured about a model, found again by all that it depends on. */
import type { ModelSource } from '../core/backend.ts';
import { toHex, toUtf8 } from '../core/bytes.ts';
import { digestHex } from '../core/digest.ts';
import type { Logger } from '../core/logger.ts';
import type { Platform } from '../core/platform.ts';
import type { Store } from '../core/store.ts';

/** One page. */
export interface Page {
  /** What is written there; `undefined` for a page that is new or cannot be read. */
  read(): Promise<Uint8Array | undefined>;
  /** Writes soon. A store that cannot take it loses nothing but time at the next start. */
  write(content: Uint8Array): void;
  /** Resolves when everything was written. */
  settled(): Promise<void>;
}

/**
 * Opens a page.
 * @param kind - the beginning of its name.
 * @param how - what its content depends on; a change of it starts a new page.
 */
export function openPage(
  parts: { readonly platform: Platform; readonly store: Store; readonly logger: Logger },
  kind: string,
  how: unknown,
): Page {
  const { platform, store, logger } = parts;
  const name = `${kind}-${hashOf(platform, JSON.stringify(how)).slice(0, 32)}`;
  let writing: Promise<unknown> = Promise.resolve();
  return {
    read: () => store.readRecord(name).catch(() => undefined),
    write: (content) => {
      writing = store
        .updateRecord(name, () => content)
        .catch((error: unknown) => {
          logger.debug({ err: error, page: name }, 'What was measured about a model could not be kept.');
        });
    },
    settled: async () => void (await writing),
  };
}

/** SHA-256 of a file's content in lower-case hex. */
export async function contentOf(platform: Platform, { path, bytes }: ModelSource): Promise<string> {
  if (path === undefined) return digestHex(platform, bytes);
  return platform.files?.sha256(path) ?? path;
}

/** SHA-256 of a text in lower-case hex. */
export function hashOf(platform: Platform, text: string): string {
  const hash = platform.createSha256();
  hash.update(toUtf8(text));
  return toHex(hash.digest());
}
