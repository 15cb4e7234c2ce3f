import type { Command } from 'commander';
import { nodePlatform } from '../platform-node.ts';
import type { RolloutEvidence } from '../server/api/answers.ts';
import { rolloutPath } from './admin-client.ts';
import { connect, withServerFlags, type ServerFlags } from './connection.ts';
import { describeEvidence } from './rollout-evidence.ts';
import { parseDuration } from './rollout-options.ts';
import type { Terminal } from './terminal.ts';

interface Flags extends ServerFlags {
  readonly channel: string;
  readonly every: number;
  readonly once?: true;
  readonly json?: true;
}

/** Exit codes where a guard stopped the rollout, and where it waits for a person. */
const failedCode = 3;
const heldCode = 4;

/** Adds `inlay rollout watch`. */
export function addRolloutWatch(
  rollout: Command,
  terminal: Terminal,
  exitWith: (code: number) => void,
): void {
  const command = rollout
    .command('watch')
    .description(
      'show the evidence of a rollout until it has ended; ends with 3 if a guard stopped it, with 4 if it is held and waits for a person',
    )
    .argument('<name>', 'name of the model')
    .option('--channel <name>', 'channel that the devices follow', 'stable')
    .option('--every <time>', 'time between two looks', parseDuration, 10);
  withServerFlags(command)
    .option('--once', 'look once')
    .option('--json', 'print one line of JSON for each look')
    .action(async (name: string, flags: Flags) => {
      const client = connect(flags, terminal);
      const platform = nodePlatform();
      let isInterrupted = false;
      let wake = (): void => undefined;
      void terminal.interrupted().then(() => {
        isInterrupted = true;
        wake();
      });
      for (let before = ''; ;) {
        const evidence = await client.ask<RolloutEvidence>(`${rolloutPath(flags.channel, name)}/evidence`);
        const text = flags.json ? JSON.stringify(evidence) : describeEvidence(evidence);
        // What has not changed is not said again.
        if (text !== before) terminal.print(before === '' || flags.json ? text : `\n${text}`);
        before = text;
        if (evidence.status === 'failed') exitWith(failedCode);
        if (evidence.status === 'held') exitWith(heldCode);
        if (flags.once || evidence.status !== 'running' || isInterrupted) return;
        await new Promise<void>((done) => {
          wake = done;
          platform.setTimer(done, Math.max(flags.every, 1) * 1000, true);
        });
        if (isInterrupted) return;
      }
    });
}
