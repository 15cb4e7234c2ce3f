import type { Command } from 'commander';
import { reachedBp, readSigned, weightOf } from '../publish/rollout.ts';
import type { AuditRecord } from '../server/db/repository.ts';
import { DEFAULT_TRIAL, type Plan, type SignedPlan } from '../update/plan.ts';
import type { RolloutEvidence } from '../server/api/answers.ts';
import { rolloutPath } from './admin-client.ts';
import { connect, withServerFlags, type ServerFlags } from './connection.ts';
import { describeEvidence } from './rollout-evidence.ts';
import { formatDuration } from './rollout-options.ts';
import { table, type Terminal } from './terminal.ts';

/** Adds `inlay rollout show`. */
export function addRolloutShow(rollout: Command, terminal: Terminal): void {
  const command = rollout
    .command('show')
    .description('show one rollout with all its rules, and what was done to it')
    .argument('<name>', 'name of the model')
    .option('--channel <name>', 'channel that the devices follow', 'stable');
  withServerFlags(command)
    .option('--json', 'print JSON')
    .action(async (name: string, flags: ServerFlags & { readonly channel: string; readonly json?: true }) => {
      const client = connect(flags, terminal);
      const { plan, records } = await client.rollout(flags.channel, name);
      const evidence = await client.ask<RolloutEvidence>(`${rolloutPath(flags.channel, name)}/evidence`);
      if (flags.json) {
        terminal.print(JSON.stringify({ channel: flags.channel, plan, records, evidence }));
        return;
      }
      terminal.print(describePlan(plan));
      if (evidence.programme !== null) terminal.print(`\n${describeEvidence(evidence)}`);
      if (records.length > 0) terminal.print(`\n${history(records)}`);
    });
}

function describePlan(signed: SignedPlan): string {
  const plan = readSigned(signed);
  const { model, cand, base, state, bp, ctl, bucketBy, allow, deny, rules, pollS, leaseS, retryNonce } = plan;
  const { stage, pinned, arms, shadow, report } = plan;
  const rows: (readonly [string, string])[] = [
    ['version', `${cand.version} (${cand.path})`],
    ['others run', base?.version ?? 'what they have'],
    ['state', pinned ? `${state}, pinned` : state],
    ...(stage === 0 ? [] : [['stage', String(stage)] as const]),
    ['share', shareOf(plan)],
    ...arms.map(
      ({ name, entry, ranges }) =>
        [`arm ${name}`, `${entry.version} on ${weightOf(ranges, bp) / 100} % of the share`] as const,
    ),
    ...(shadow
      ? [['shadow', `${shadow.bp / 100} %, ${shadow.sampleBp / 100} % of their calls`] as const]
      : []),
    ['control', `${Math.min(ctl, 10_000 - bp) / 100} %`],
    ...rules.map((rule) => ['rule', JSON.stringify(rule)] as const),
    ...(allow.length + deny.length > 0
      ? [['devices', `${allow.length} allowed, ${deny.length} denied`] as const]
      : []),
    ...(bucketBy === 'install' ? [] : [['buckets by', bucketBy] as const]),
    ['trial', trialOf(plan)],
    ['downloads', downloadsOf(plan)],
    ...(pollS === undefined ? [] : [['polls every', formatDuration(pollS)] as const]),
    ...(report ? [['reports every', formatDuration(report.everyS)] as const] : []),
    ...(leaseS === 0 ? [] : [['lease', formatDuration(leaseS)] as const]),
    ...(retryNonce === 0 ? [] : [['retries', String(retryNonce)] as const]),
    ['rollout', plan.id],
  ];
  return table([model, ''], rows);
}

function shareOf(plan: Plan): string {
  const { bp, startAt, durationS, state } = plan;
  if (durationS === 0 || startAt === undefined || state !== 'ramp') return `${bp / 100} %`;
  return `${reachedBp(plan, Date.now()) / 100} % now, ${bp / 100} % ${formatDuration(durationS)} after ${startAt}`;
}

function trialOf({ trial }: Plan): string {
  const usual = new Map<string, number>(Object.entries(DEFAULT_TRIAL));
  const settings = Object.entries(trial).filter(([name, value]) => usual.get(name) !== value);
  return settings.length === 0 ? 'usual' : settings.map(([name, value]) => `${name}=${value}`).join(', ');
}

function downloadsOf({ net }: Plan): string {
  const wishes = Object.entries(net).filter(([, isAsked]) => isAsked === true);
  return wishes.length === 0 ? 'at any time' : `when ${wishes.map(([name]) => name).join(', ')}`;
}

function history(records: readonly AuditRecord[]): string {
  const rows = records.map(({ at, actor, action, details }) => [
    at.slice(0, 19).replace('T', ' '),
    actor,
    action,
    [
      details['version'],
      typeof details['percent'] === 'number' ? `${details['percent']} %` : '',
      details['state'],
    ]
      .filter((part) => typeof part === 'string' && part !== '')
      .join(' '),
    typeof details['reason'] === 'string' ? details['reason'] : '',
  ]);
  return table(['at (UTC)', 'by', 'action', 'what', 'why'], rows);
}
