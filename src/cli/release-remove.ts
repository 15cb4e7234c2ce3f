import type { Command } from 'commander';
import { removeRelease } from '../publish/release-policy.ts';
import { changeRelease, printChange, withChangeFlags, type ChangeFlags } from './release-change.ts';
import type { Terminal } from './terminal.ts';

/** Adds `inlay release remove`. */
export function addReleaseRemove(release: Command, terminal: Terminal): void {
  const command = release
    .command('remove')
    .description(
      'take an old release off the list that devices download; refused while a plan names it, and for a withdrawn one',
    );
  withChangeFlags(command).action(async (name: string, version: string, flags: ChangeFlags) => {
    const changed = await changeRelease(terminal, flags, { name, version }, removeRelease);
    printChange(terminal, flags, { name, version }, changed, `${name} ${version} is no longer listed.`);
  });
}
