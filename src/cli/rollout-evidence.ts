/** What is known of a rollout, as text. */

import type { GuardEvidence, RolloutEvidence } from '../server/api/answers.ts';
import { formatNumber, formatTime, none } from './format.ts';
import { table } from './terminal.ts';

/** Draws the evidence of one rollout. */
export function describeEvidence(evidence: RolloutEvidence): string {
  const { channel, plan, programme, status, stage, stageAt, reason, devices, guards, arms, shadow } =
    evidence;
  const share = `${plan.bp / 100} %`;
  const stages =
    programme === null
      ? share
      : `stage ${stage + 1} of ${programme.stages.length}, ${share} since ${formatTime(stageAt)} UTC`;
  const parts = [
    `${plan.model} ${plan.cand.version} in ${channel}: ${status}, ${stages}`,
    reason,
    `${devices.exposed} devices have it, ${devices.control} are its control, ${devices.silent} went silent.`,
  ];
  if (guards.length > 0) parts.push('', guardTable(guards));
  if (arms.length > 0) {
    const rows = arms.map(({ arm, version, weightBp, devices: count, reward }) => [
      arm,
      version,
      `${weightBp / 100} %`,
      count === null ? 'hidden' : String(count),
      formatNumber(reward, 4),
    ]);
    parts.push('', table(['arm', 'version', 'share', 'devices', 'reward'], rows));
    parts.push(...arms.flatMap(({ comparison }) => comparison?.text ?? []));
  }
  if (shadow !== null) {
    const { n, alike, unlike, failed } = shadow;
    parts.push('', `In the shadow: ${n} runs, ${alike} alike, ${unlike} not alike, ${failed} failed.`);
  }
  return parts.filter((part, i) => part !== '' || i > 2).join('\n');
}

function guardTable(guards: readonly GuardEvidence[]): string {
  const rows = guards.map((guard) => [
    `${guard.guard}${guard.required ? ' *' : ''}`,
    verdictOf(guard),
    evidenceOf(guard.logEFail, guard.failAt),
    evidenceOf(guard.logEPass, guard.passAt),
    devicesOf(guard, guard.treated),
    devicesOf(guard, guard.control),
    formatNumber(guard.ratio),
    guard.devicesLeft === null ? none : guard.devicesLeft.toLocaleString('en'),
  ]);
  const head = ['guard', 'verdict', 'fails at', 'passes at', 'bad', 'in control', 'ratio', 'devices left'];
  return `${table(head, rows)}\n\n* has to pass. Evidence is the natural logarithm of an e-value, beside what it has to reach.`;
}

/** Tripwires and the ratio of the sample never pass: they go off, or they are clean. */
function verdictOf({ guard, verdict }: GuardEvidence): string {
  if (verdict === 'open' && (guard === 'tripwire' || guard === 'sample-ratio')) return 'clean';
  return verdict === 'fail' && guard === 'tripwire' ? 'tripped' : verdict;
}

/** Nothing is to be reached where the limit is 0: tripwires have no evidence, and the ratio of the sample proves nothing. */
function evidenceOf(log: number, limit: number): string {
  return limit === 0 ? none : `${formatNumber(log)} / ${formatNumber(limit)}`;
}

/** The ratio of the sample is about how many devices there are. */
function devicesOf({ guard }: GuardEvidence, { judged, bad }: GuardEvidence['treated']): string {
  return guard === 'sample-ratio' ? `${judged} devices` : `${bad} of ${judged}`;
}
