import { stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { nodePlatform } from '../platform-node.ts';
import { readVerified } from '../publish/verified-copy.ts';
import { connect, withServerFlags, type ServerFlags } from './connection.ts';
import { exportFiles } from './export-files.ts';
import { formatBytes, type Terminal } from './terminal.ts';
import { readRoot, withRootFlags, type RootFlags } from './trusted-root.ts';

interface Flags extends ServerFlags, RootFlags {
  readonly json?: true;
}

/** Adds `inlay export`. */
export function addExport(program: Command, terminal: Terminal): void {
  const command = program
    .command('export')
    .description('write what devices download as plain files, for any static host; again: what changed')
    .argument('<dir>', 'folder that the host serves; created if missing');
  withServerFlags(withRootFlags(command))
    .option('--json', 'print JSON')
    .addHelpText('after', help)
    .action(async (dir: string, flags: Flags) => {
      const directory = resolve(terminal.cwd, dir);
      await assertFolder(directory, dir);
      const parts = { server: connect(flags, terminal), platform: nodePlatform() };
      const copy = await readVerified({ ...parts, root: await readRoot(flags, terminal) });
      const summary = await exportFiles({ ...parts, directory }, copy);
      const expires = [
        copy.snapshot.expires,
        copy.rollout.expires,
        copy.targets.expires,
        copy.timestamp.expires,
      ];
      const [until] = expires.sort();
      if (flags.json) {
        terminal.print(JSON.stringify({ directory, ...summary, expires: until }));
        return;
      }
      const { files, written, sizeBytes } = summary;
      terminal.print(
        `Exported ${files} files (${formatBytes(sizeBytes)}) to ${directory}; ${written} were new or had changed.`,
      );
      terminal.print(`Devices take updates from it until ${until}; export it again before.`);
    });
}

/** Refuses a file where a folder is to be. What is not there yet is created. */
async function assertFolder(directory: string, dir: string): Promise<void> {
  const isFolder = await stat(directory).then(
    (found) => found.isDirectory(),
    // A part of the path is a file.
    (error: unknown) => (error as { code?: unknown } | null)?.code !== 'ENOTDIR',
  );
  if (!isFolder) throw new RangeError(`${dir} is not a folder; name one, or a path that is free.`);
}

const help = `
The folder holds v1/tip, v1/metadata and v1/targets. Serve it as it is; the URL that devices
get as sync.url is that of the folder. The server's signatures expire after three days, so
export again at least once a day, from a timer, while the server runs.`;
