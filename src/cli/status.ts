import { homedir } from 'node:os';
import { resolve } from 'node:path';
import { InvalidArgumentError, type Command } from 'commander';
import { nodePlatform } from '../platform-node.ts';
import { cacheDirectory } from '../stores/fs-host.ts';
import { rolloutTable } from './rollout-list.ts';
import { connect, withServerFlags, type ServerFlags } from './connection.ts';
import { describeDevice } from './device-status-print.ts';
import { readDeviceStatus } from './device-status.ts';
import { formatBytes, table, type Terminal } from './terminal.ts';

interface Flags extends ServerFlags {
  readonly store?: string;
  readonly device?: true;
  readonly events: number;
  readonly json?: true;
}

/** Adds `inlay status`. */
export function addStatus(program: Command, terminal: Terminal): void {
  const command = program
    .command('status')
    .description('show what is installed on the server, or what a device has');
  withServerFlags(command)
    .option(
      '--store <dir>',
      'look into the store of a device instead: the folder that its models are kept in',
    )
    .option('--device', 'look into the store of this machine ($INLAY_CACHE_DIR, or its cache folder)')
    .option('--events <number>', 'how many of the last events of a device are shown', parseCount, 20)
    .option('--json', 'print JSON')
    .action(async (flags: Flags) => {
      if (flags.store !== undefined || flags.device) {
        await showDevice(flags, terminal);
        return;
      }
      const status = await connect(flags, terminal).status();
      if (flags.json) {
        terminal.print(JSON.stringify(status));
        return;
      }
      const { root, targets, expires, expiresInS, warnings, models, blobs, channels } = status;
      terminal.print(
        `root ${root}, targets ${targets}, ${blobs.count} blobs (${formatBytes(blobs.sizeBytes)})`,
      );
      const releases = Object.entries(models).flatMap(([model, versions]) =>
        versions.map(({ version, seq, length, sha256, isWithdrawn }) => [
          model,
          version,
          String(seq),
          formatBytes(length),
          sha256.slice(0, 12),
          isWithdrawn ? 'withdrawn' : '',
        ]),
      );
      if (releases.length > 0) {
        terminal.print(`\n${table(['model', 'version', 'seq', 'size', 'sha256', ''], releases)}`);
      }
      const plans = rolloutTable(channels);
      if (plans !== undefined) terminal.print(`\n${plans}`);
      const roles = Object.entries(expires).map(([role, time]) => [
        role,
        time,
        timeLeft(expiresInS[role] ?? 0),
      ]);
      if (root > 0) terminal.print(`\n${table(['metadata', 'expires', 'in'], roles)}`);
      else terminal.print('Nothing is installed yet; run `inlay keys init`.');
      for (const { message } of warnings) terminal.print(`\nWarning: ${message}`);
    });
}

async function showDevice({ store, events, json }: Flags, { env, cwd, print }: Terminal): Promise<void> {
  const platform = nodePlatform();
  const directory = store ?? cacheDirectory({ platform: process.platform, env, homedir });
  const status = await readDeviceStatus(resolve(cwd, directory), platform);
  print(json ? JSON.stringify(status) : describeDevice(status, { now: platform.now(), events }));
}

function timeLeft(seconds: number): string {
  if (seconds <= 0) return 'expired';
  return seconds >= 2 * 86_400
    ? `${Math.floor(seconds / 86_400)} days`
    : `${Math.floor(seconds / 3600)} hours`;
}

function parseCount(text: string): number {
  if (/^\d{1,3}$/.test(text)) return Number(text);
  throw new InvalidArgumentError('It is an integer from 0 to 999.');
}
