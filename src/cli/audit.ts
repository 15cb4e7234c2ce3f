import { InvalidArgumentError, type Command } from 'commander';
import { ServerError } from '../core/errors.ts';
import type { AuditAnswer } from '../server/api/answers.ts';
import { auditModelFile, auditModelHelp, levelOption, type AuditModelFlags } from './audit-model.ts';
import { connect, withServerFlags, type ServerFlags } from './connection.ts';
import { table, type Terminal } from './terminal.ts';
import { withUsageCode } from './usage.ts';

interface Flags extends ServerFlags {
  readonly json?: true;
}

interface AuditFlags extends Flags, AuditModelFlags {
  readonly last: number;
}

/**
 * Adds `inlay audit`: of a model, or of the server.
 * @param exitWith ends the command with a code other than 0 that is no failure.
 */
export function addAudit(program: Command, terminal: Terminal, exitWith: (code: number) => void): void {
  const audit = withUsageCode(program.command('audit'))
    .description(
      'name the nodes of a model that onnxruntime did not fuse, and why; without a model: who changed what on the server',
    )
    .argument('[model]', 'ONNX model')
    .enablePositionalOptions();
  withServerFlags(audit)
    .option('--last <number>', 'of the server: how many records', parseCount, 20)
    .addOption(levelOption())
    .option('--json', 'print JSON')
    .addHelpText('after', auditModelHelp)
    .action(async (model: string | undefined, flags: AuditFlags) => {
      if (model !== undefined) {
        await auditModelFile(model, flags, terminal, exitWith);
        return;
      }
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
