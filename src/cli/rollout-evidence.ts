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
    guard.verdict,
    `${formatNumber(guard.logEFail)} / ${formatNumber(guard.failAt)}`,
    `${formatNumber(guard.logEPass)} / ${formatNumber(guard.passAt)}`,
    `${guard.treated.bad} of ${guard.treated.judged}`,
    `${guard.control.bad} of ${guard.control.judged}`,
    formatNumber(guard.ratio),
    guard.devicesLeft === null ? none : guard.devicesLeft.toLocaleString('en'),
  ]);
  const head = ['guard', 'verdict', 'fails at', 'passes at', 'bad', 'in control', 'ratio', 'devices left'];
  return `${table(head, rows)}\n\n* has to pass. Evidence is the natural logarithm of an e-value, beside what it has to reach.`;
}
