import { InvalidArgumentError, type Command } from 'commander';
import { ServerError } from '../core/errors.ts';
import type { AuditAnswer } from '../server/api/answers.ts';
import { connect, withServerFlags, type ServerFlags } from './connection.ts';
import { table, type Terminal } from './terminal.ts';

interface Flags extends ServerFlags {
  readonly json?: true;
}

/** Adds `inlay audit`. */
export function addAudit(program: Command, terminal: Terminal): void {
  const audit = program
    .command('audit')
    .description('show who changed what, newest first')
    .enablePositionalOptions();
  withServerFlags(audit)
    .option('--last <number>', 'how many records', parseCount, 20)
    .option('--json', 'print JSON')
    .action(async (flags: Flags & { readonly last: number }) => {
      const { records, intact } = await connect(flags, terminal).ask<AuditAnswer>(
        `audit?limit=${flags.last}`,
      );
      if (flags.json) {
        terminal.print(JSON.stringify({ records, intact }));
        return;
      }
      const rows = records.map(({ seq, at, actor, action, details }) => [
        String(seq),
        at.slice(0, 19).replace('T', ' '),
        actor,
        action,
        describe(details),
      ]);
      terminal.print(table(['#', 'at (UTC)', 'by', 'action', 'what'], rows));
      if (!intact) terminal.printError('\nThe log is not as it was written; see `inlay audit verify`.');
    });

  withServerFlags(
    audit
      .command('verify')
      .description('check the hashes of the whole log; ends with 1 if one does not hold'),
  )
    .option('--json', 'print JSON')
    .action(async (flags: Flags) => {
      const verdict = await connect(flags, terminal).ask<{
        readonly seq: number;
        readonly hash: string;
        readonly brokenSeq: number | null;
      }>('audit/verify');
      if (flags.json) terminal.print(JSON.stringify(verdict));
      const { seq, hash, brokenSeq } = verdict;
      if (brokenSeq !== null) {
        throw new ServerError(
          'ERR_INLAY_SERVER',
          `Record ${brokenSeq} of the audit log is missing or not as it was written; restore the database from a backup.`,
          { details: { brokenSeq } },
        );
      }
      if (flags.json) return;
      terminal.print(`All ${seq} records are as they were written.`);
      terminal.print(`Keep this elsewhere, to see whether records are cut off later:\n  ${seq} ${hash}`);
    });
}

function describe(details: Readonly<Record<string, unknown>>): string {
  // What was meant says more than what was before.
  const rank = (name: string): number => (name === 'reason' ? 0 : name === 'before' ? 2 : 1);
  const ordered = Object.entries(details).sort(([a], [b]) => rank(a) - rank(b));
  const shown = ordered.map(([name, value]) => {
    const text =
      typeof value === 'string' || typeof value === 'number' ? String(value) : JSON.stringify(value);
    return `${name}=${text.slice(0, 60)}`;
  });
  return shown.join(' ').slice(0, 160);
}

function parseCount(text: string): number {
  const count = Number(text);
  if (/^\d{1,4}$/.test(text) && count >= 1 && count <= 1000) return count;
  throw new InvalidArgumentError('It is an integer from 1 to 1000.');
}
