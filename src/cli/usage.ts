/** Exit codes of wrong command lines. */

import { CommanderError, type Command } from 'commander';

/** `EX_USAGE` of sysexits.h, for commands whose code 2 says something of a model. */
const USAGE = 64;

/** Lets wrong command lines of a command, and of those that are added below it, end with 64 instead of 2. */
export function withUsageCode(command: Command): Command {
  return command.exitOverride(({ exitCode, code, message }) => {
    throw new CommanderError(exitCode === 0 ? 0 : USAGE, code, message);
  });
}
