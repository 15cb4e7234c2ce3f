import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { ServerError } from '../core/errors.ts';
import { openKeys, withKeyFlags, type KeyFlags } from './connection.ts';
import type { Terminal } from './terminal.ts';

/** Options of commands that read what a device reads. */
export interface RootFlags extends KeyFlags {
  readonly root?: string;
}

/** Adds `--root` and `--keys`. */
export function withRootFlags(command: Command): Command {
  return withKeyFlags(command).option('--root <file>', 'root.json to trust (default: that of --keys)');
}

/** Reads the root that everything is verified by. @throws {@link ServerError} `ERR_INLAY_NOT_FOUND` */
export async function readRoot(flags: RootFlags, terminal: Terminal): Promise<Uint8Array> {
  if (flags.root === undefined) return openKeys(flags, terminal).root();
  const path = resolve(terminal.cwd, flags.root);
  try {
    return new Uint8Array(await readFile(path));
  } catch (cause) {
    throw new ServerError('ERR_INLAY_NOT_FOUND', `The root ${path} cannot be read; check the path.`, {
      cause,
    });
  }
}
