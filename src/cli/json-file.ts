import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { InputError } from '../core/errors.ts';

/**
 * Reads a file of JSON that a person wrote; whoever takes the value checks it.
 * @param what what the file holds, for the message, such as `rule`.
 * @throws {@link InputError} `ERR_INLAY_FEED_VALUE` if it cannot be read as JSON.
 */
export function readJsonFile(what: string, path: string, cwd: string): unknown {
  try {
    return JSON.parse(readFileSync(resolve(cwd, path), 'utf8'));
  } catch (cause) {
    throw new InputError(
      'ERR_INLAY_FEED_VALUE',
      `The ${what} ${path} cannot be read as JSON; check the path and the file.`,
      { cause },
    );
  }
}
