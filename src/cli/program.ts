import { readFileSync } from 'node:fs';
import { inspect } from 'node:util';
import { Command, CommanderError } from 'commander';
import { addAlerts } from './alerts.ts';
import { addAudit } from './audit.ts';
import { addBench } from './bench.ts';
import { addCompare } from './compare.ts';
import { addDiff } from './diff.ts';
import { addEmbed } from './embed.ts';
import { addExport } from './export.ts';
import { addFleet } from './fleet.ts';
import { addFloor } from './floor.ts';
import { addInspect } from './inspect.ts';
import { addKeysAdd, addKeysExport } from './keys-export.ts';
import { addKeysInit } from './keys-init.ts';
import { addKeysInstall } from './keys-install.ts';
import { addKeysRenew } from './keys-renew.ts';
import { addKeysRotate } from './keys-rotate.ts';
import { addKeysSign } from './keys-sign.ts';
import { addKeysStatus } from './keys-status.ts';
import { addOptimize } from './optimize.ts';
import { addPatch } from './patch.ts';
import { addPrune } from './prune.ts';
import { addPublish } from './publish.ts';
import { addQuantize } from './quantize.ts';
import { addReleaseRemove } from './release-remove.ts';
import { addRevoke } from './revoke.ts';
import { addRolloutAdvance } from './rollout-advance.ts';
import { addRolloutChange } from './rollout-change.ts';
import { addRolloutList } from './rollout-list.ts';
import { addRolloutPlan } from './rollout-plan.ts';
import { addRolloutSet } from './rollout-set.ts';
import { addRolloutShow } from './rollout-show.ts';
import { addRolloutStart } from './rollout-start.ts';
import { addRolloutVerify } from './rollout-verify.ts';
import { addRolloutWatch } from './rollout-watch.ts';
import { addRun } from './run.ts';
import { addServer } from './server.ts';
import { addSimulate } from './simulate.ts';
import { addStatus } from './status.ts';
import { toPrintable, type Terminal } from './terminal.ts';
import { addTokens } from './tokens.ts';
import { addTypes } from './types.ts';
import { addValidate } from './validate.ts';

/**
 * Runs one command line.
 * @param args without the names of the runtime and the script.
 * @returns exit code: 0, 1 for a failure, 2 for a wrong command line unless the command says 64, others as its help says.
 */
export async function runCommand(args: readonly string[], outside: Terminal): Promise<number> {
  // Names in model files and messages of servers are printed, and come from anyone.
  const terminal: Terminal = {
    ...outside,
    print: (text) => {
      outside.print(toPrintable(text));
    },
    printError: (text) => {
      outside.printError(toPrintable(text));
    },
  };
  let exitCode = 0;
  const exitWith = (code: number): void => {
    exitCode = code;
  };
  try {
    await createProgram(terminal, exitWith).parseAsync([...args], { from: 'user' });
    return exitCode;
  } catch (error) {
    // Commander has printed its message already.
    if (error instanceof CommanderError) return error.exitCode === 1 ? 2 : error.exitCode;
    terminal.printError(describe(error));
    if (terminal.env['INLAY_DEBUG']) terminal.printError(inspect(error));
    return 1;
  }
}

function createProgram(terminal: Terminal, exitWith: (code: number) => void): Command {
  const program = new Command('inlay')
    .description('Publish ML models, roll them out, and run the server that devices update from.')
    .version(packageVersion())
    // `publish --version` is the release's, not the program's.
    .enablePositionalOptions()
    .showHelpAfterError('(`inlay --help` shows what there is)')
    .exitOverride()
    .configureOutput({
      writeOut: (text) => {
        terminal.print(text.trimEnd());
      },
      writeErr: (text) => {
        terminal.printError(text.trimEnd());
      },
    });
  addServer(program, terminal);
  const keys = program.command('keys').description('offline signing keys');
  addKeysInit(keys, terminal);
  addKeysStatus(keys, terminal, exitWith);
  addKeysRenew(keys, terminal);
  addKeysRotate(keys, terminal);
  addKeysSign(keys, terminal);
  addKeysInstall(keys, terminal);
  addKeysExport(keys, terminal);
  addKeysAdd(keys, terminal);
  addPublish(program, terminal);
  addRevoke(program, terminal);
  addFloor(program, terminal);
  addEmbed(program, terminal);
  addExport(program, terminal);
  const release = program.command('release').description('releases on the server');
  addReleaseRemove(release, terminal);
  const rollout = program.command('rollout').description('which devices run which version');
  addRolloutPlan(rollout, terminal);
  addRolloutStart(rollout, terminal);
  addRolloutAdvance(rollout, terminal);
  addRolloutWatch(rollout, terminal, exitWith);
  addRolloutVerify(rollout, terminal);
  addRolloutSet(rollout, terminal);
  addRolloutChange(rollout, terminal);
  addRolloutList(rollout, terminal);
  addRolloutShow(rollout, terminal);
  addFleet(program, terminal);
  addAlerts(program, terminal);
  addTokens(program, terminal);
  addAudit(program, terminal, exitWith);
  addStatus(program, terminal);
  addInspect(program, terminal);
  addValidate(program, terminal, exitWith);
  addTypes(program, terminal);
  addOptimize(program, terminal, exitWith);
  addCompare(program, terminal, exitWith);
  addQuantize(program, terminal, exitWith);
  addPrune(program, terminal, exitWith);
  addDiff(program, terminal);
  addPatch(program, terminal);
  addRun(program, terminal, exitWith);
  addBench(program, terminal);
  addSimulate(program, terminal);
  return program;
}

function describe(error: unknown): string {
  if (!(error instanceof Error)) return `error: ${String(error)}`;
  const { code } = error as { code?: unknown };
  return `error: ${error.message}${typeof code === 'string' ? ` (${code})` : ''}`;
}

function packageVersion(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}
