import { InvalidArgumentError, type Command } from 'commander';
import { revokeRelease } from '../publish/release-policy.ts';
import { changeRelease, printChange, withChangeFlags, type ChangeFlags } from './release-change.ts';
import type { Terminal } from './terminal.ts';

/** Adds `inlay revoke`. */
export function addRevoke(program: Command, terminal: Terminal): void {
  const command = program
    .command('revoke')
    .description('withdraw a release for good: no device runs it any more, whatever any server says');
  withChangeFlags(command)
    .option('--reason <text>', 'why; signed with the release', parseReason)
    .action(async (name: string, version: string, flags: ChangeFlags & { readonly reason?: string }) => {
      const { reason } = flags;
      const changed = await changeRelease(terminal, flags, { name, version }, (targets, change) =>
        revokeRelease(targets, { ...change, reason }),
      );
      printChange(terminal, flags, { name, version }, changed, `${name} ${version} is withdrawn.`);
    });
}

function parseReason(text: string): string {
  if (text.length <= 1000 && !/[\ud800-\udfff]/u.test(text)) return text;
  throw new InvalidArgumentError('It is well-formed text of at most 1000 characters.');
}
