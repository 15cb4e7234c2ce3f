import type { Command } from 'commander';
import { raiseFloor } from '../publish/release-policy.ts';
import { changeRelease, printChange, withChangeFlags, type ChangeFlags } from './release-change.ts';
import type { Terminal } from './terminal.ts';

/** Adds `inlay floor`. */
export function addFloor(program: Command, terminal: Terminal): void {
  const command = program
    .command('floor')
    .description('withdraw all releases before a version for good; the floor of a model only rises');
  withChangeFlags(command).action(async (name: string, version: string, flags: ChangeFlags) => {
    const changed = await changeRelease(terminal, flags, { name, version }, raiseFloor);
    printChange(
      terminal,
      flags,
      { name, version },
      changed,
      `All releases of ${name} before ${version} are withdrawn.`,
    );
  });
}
