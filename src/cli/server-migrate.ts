import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Command } from 'commander';
import { ServerError } from '../core/errors.ts';
import { nodePlatform } from '../platform-node.ts';
import { table, type Terminal } from './terminal.ts';

interface Flags {
  readonly data: string;
  readonly from?: string;
  readonly to: string;
  readonly json?: true;
}

const lineMs = 2000;

/** Adds `inlay server migrate`. */
export function addServerMigrate(server: Command, terminal: Terminal): void {
  server
    .command('migrate')
    .description('copy the database into another, empty one, such as from a file to PostgreSQL')
    .option('--data <dir>', 'folder of the server, which must not run', './inlay-data')
    .option('--from <url>', 'postgres://… or a SQLite file to copy from instead of the one in that folder')
    .requiredOption('--to <url>', 'postgres://… or the path of a SQLite file')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      '\nA copy that was cut off goes on where it was when it is started again. Models stay where they are.',
    )
    .action(async (flags: Flags) => {
      // Other commands start sooner without databases.
      const [{ moveDatabase }, { isPostgresUrl, openDatabase }, { lockDirectory }] = await Promise.all([
        import('../server/db/move.ts'),
        import('../server/db/open.ts'),
        import('../server/lock.ts'),
      ]);
      const platform = nodePlatform();
      const directory = resolve(terminal.cwd, flags.data);
      const from = flags.from ?? join(directory, 'inlay.db');
      const source = isPostgresUrl(from) ? from : resolve(terminal.cwd, from);
      if (!isPostgresUrl(from) && !existsSync(source)) {
        throw new ServerError('ERR_INLAY_NOT_FOUND', `There is no database ${source}; say where it is.`);
      }
      const to = isPostgresUrl(flags.to) ? flags.to : resolve(terminal.cwd, flags.to);
      const undo: (() => unknown)[] = [];
      try {
        if (flags.from === undefined) undo.push(await lockDirectory(directory));
        const present = await openDatabase(source);
        undo.push(() => present.db.destroy());
        const target = await openDatabase(to, { forMove: true });
        undo.push(() => target.db.destroy());
        let printedMs = platform.monotonicMs();
        const counts = await moveDatabase(present, target, {
          now: () => platform.now(),
          onProgress: (name, rows, of) => {
            if (platform.monotonicMs() - printedMs < lineMs) return;
            printedMs = platform.monotonicMs();
            terminal.printError(`${name}: ${rows.toLocaleString('en')} of ${of.toLocaleString('en')} rows`);
          },
        });
        if (flags.json) {
          terminal.print(JSON.stringify(counts));
          return;
        }
        const rows = Object.entries(counts).filter(([, count]) => count > 0);
        terminal.print(
          table(
            ['table', 'rows'],
            rows.map(([name, count]) => [name, count.toLocaleString('en')]),
          ),
        );
        terminal.print('\nAll rows are there. Next:\n  npx inlay server --database URL');
      } finally {
        for (const step of undo.reverse()) await step();
      }
    });
}
