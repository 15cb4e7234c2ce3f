/** What `inlay revoke`, `inlay floor` and `inlay release remove` have in common. */

import type { Command } from 'commander';
import type { Targets } from '../trust/metadata.ts';
import { nodePlatform } from '../platform-node.ts';
import { changeTargets } from '../publish/publisher.ts';
import { requireRelease } from '../publish/released-files.ts';
import type { ReleaseChange } from '../publish/release-policy.ts';
import { isWithdrawn, listReleases } from '../publish/release.ts';
import type { ServerStatus } from '../server/status.ts';
import {
  connect,
  openKeys,
  withKeyFlags,
  withServerFlags,
  type KeyFlags,
  type ServerFlags,
} from './connection.ts';
import type { Terminal } from './terminal.ts';

/** Options of these commands. */
export interface ChangeFlags extends ServerFlags, KeyFlags {
  readonly json?: true;
}

/** Adds the arguments and options of these commands. */
export function withChangeFlags(command: Command): Command {
  command.argument('<name>', 'name of the model').argument('<version>', 'published version');
  return withServerFlags(withKeyFlags(command)).option('--json', 'print JSON');
}

/** What has become of the targets. */
export interface Changed {
  readonly seq: number;
  /** Version of the targets in force. */
  readonly targets: number;
  /** False if it was so before. */
  readonly isChanged: boolean;
  /** What runs where, in words: the plans that named a release which is withdrawn now. */
  readonly plans: readonly string[];
}

/**
 * Signs a change that concerns one release.
 * @throws {@link ServerError} `ERR_INLAY_NOT_FOUND` if there is no such version, and what `changeTargets` throws.
 */
export async function changeRelease(
  terminal: Terminal,
  flags: ChangeFlags,
  { name, version }: { readonly name: string; readonly version: string },
  change: (targets: Targets, change: ReleaseChange) => Targets,
): Promise<Changed> {
  const server = connect(flags, terminal);
  const parts = { server, keys: openKeys(flags, terminal), platform: nodePlatform() };
  const before = await server.status();
  let seq = 0;
  let isChanged = false;
  const targets = await changeTargets(parts, (present, expires) => {
    const release = requireRelease(present, name, version);
    const next = change(present, { release, expires });
    seq = release.seq;
    isChanged = next !== present;
    return next;
  });
  const after = isChanged ? await server.status() : before;
  return { seq, targets: targets.version, isChanged, plans: affected(name, targets, before, after) };
}

/** Says what happens to the devices that ran a withdrawn release, and what to do for them. */
function affected(
  model: string,
  targets: Targets,
  before: ServerStatus,
  after: ServerStatus,
): readonly string[] {
  const good = listReleases(targets)
    .filter((release) => release.model === model && !isWithdrawn(targets, model, release.seq))
    .sort((a, b) => b.seq - a.seq)[0];
  const advice =
    good === undefined
      ? `publish one with \`inlay publish\``
      : `roll one out with \`inlay rollout set ${model} ${good.version} --percent 100`;
  return Object.entries(before.channels).flatMap(([channel, plans]) => {
    const plan = plans.find((candidate) => candidate.model === model);
    if (!plan) return [];
    const { cand, base } = plan;
    const isOut = (entry: typeof base): boolean => entry !== null && isWithdrawn(targets, model, entry.seq);
    if (!isOut(cand) && !isOut(base)) return [];
    const now = after.channels[channel]?.find((candidate) => candidate.id === plan.id);
    const where = channel === 'stable' ? '`' : ` --channel ${channel}\``;
    const next = good === undefined ? advice : `${advice}${where}`;
    if (isOut(cand)) {
      const backTo =
        base === null || isOut(base) ? 'the version before it or the one in the app' : base.version;
      const state = now?.state === plan.state ? '' : ` (its rollout is ${now?.state ?? 'over'})`;
      return [`Channel ${channel} offered ${cand.version}${state}: devices go back to ${backTo}; ${next}.`];
    }
    const { state, rules = [], deny = [] } = plan;
    // A rollout that is complete has nobody outside, unless it says so.
    if (state === 'complete' && rules.length + deny.length === 0) return [];
    const whose = state === 'rolledback' ? 'all devices' : `devices outside the rollout of ${cand.version}`;
    return [
      `Channel ${channel} has ${base?.version} for ${whose}: they go back to the version before it or the one in the app; ${next}.`,
    ];
  });
}

/** Prints what was changed. */
export function printChange(
  terminal: Terminal,
  { json }: ChangeFlags,
  { name, version }: { readonly name: string; readonly version: string },
  changed: Changed,
  said: string,
): void {
  if (json) {
    terminal.print(JSON.stringify({ model: name, version, ...changed }));
    return;
  }
  terminal.print(changed.isChanged ? said : `${said} Nothing was to be changed.`);
  for (const plan of changed.plans) terminal.print(`  ${plan}`);
}
