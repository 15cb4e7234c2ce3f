import type { Command } from 'commander';
import { raiseFloor, reportFloor, type FloorReport } from '../publish/release-policy.ts';
import { changeRelease, printChange, withChangeFlags, type ChangeFlags } from './release-change.ts';
import type { Terminal } from './terminal.ts';

/** Adds `inlay floor`. */
export function addFloor(program: Command, terminal: Terminal): void {
  const command = program
    .command('floor')
    .description(
      'withdraw all releases that were published before a version for good; the floor of a model only rises',
    );
  withChangeFlags(command).action(async (name: string, version: string, flags: ChangeFlags) => {
    let report: FloorReport = { withdrawn: [], staying: [] };
    const changed = await changeRelease(terminal, flags, { name, version }, (targets, change) => {
      const next = raiseFloor(targets, change);
      report = reportFloor(next, change.release);
      return next;
    });
    const { withdrawn, staying } = report;
    const what = withdrawn.length === 0 ? 'there are none' : withdrawn.join(', ');
    const said = `Releases of ${name} published before ${version} are withdrawn: ${what}.`;
    printChange(terminal, flags, { name, version }, { ...changed, ...report }, said);
    if (flags.json || staying.length === 0) return;
    const [were, are, them] = staying.length === 1 ? ['was', 'is', 'it'] : ['were', 'are', 'them'];
    terminal.print(
      `  ${listed(staying)} ${were} published after it and ${are} not withdrawn; revoke ${them}.`,
    );
  });
}

function listed(versions: readonly string[]): string {
  const [last = '', ...others] = [...versions].reverse();
  return others.length === 0 ? last : `${others.reverse().join(', ')} and ${last}`;
}
