/** What is known of a rollout, for people. */

import type { Kysely } from 'kysely';
import { ratioOf, rejectedByEBH } from '../../stats/e-process.ts';
import { logSampleRatio, SAMPLE_RATIO_LIMIT } from '../../stats/sample-ratio.ts';
import { readSigned, weightOf } from '../../publish/rollout.ts';
import { CANDIDATE_ARM } from '../../update/arms.ts';
import type { SignedPlan } from '../../update/plan.ts';
import type { GuardEvidence, RolloutEvidence } from '../api/answers.ts';
import type { Schema } from '../db/schema.ts';
import { compareArms, type ArmComparison } from './compare-arms.ts';
import { APART, isConsentSkewed } from './decide.ts';
import { alphaOf, COUNTED_GUARDS, FULL_CONSENT_GUARDS, isProven, PASS_AT } from './defaults.ts';
import { inspectionOf, type RunningProgramme } from './programmes.ts';
import { readStage } from './inspect.ts';
import type { Look, StageState } from './look.ts';
import type { GuardName } from './programme.ts';
import { readRewards } from './rewards.ts';
import { readShadow } from './shadow-counts.ts';
import { countDevices, type StageKey } from './stage-devices.ts';

/** Points of a chart. */
const mostPoints = 200;
/** Devices below which an arm is not shown. */
const fewest = 20;

/** Reads what is known of a rollout. */
export async function readEvidence(
  db: Kysely<Schema>,
  channel: string,
  signed: SignedPlan,
  running: RunningProgramme | undefined,
  now: number,
): Promise<RolloutEvidence> {
  const plan = readSigned(signed);
  const key = { rollout: plan.id, stage: running?.stage ?? plan.stage };
  const { state } = await readStage(db, key);
  const [{ devices }, looks, rewards, shadow] = await Promise.all([
    countDevices(db, key),
    listLooks(db, key, Math.max(1, Math.ceil(state.look / mostPoints))),
    readRewards(db, key, running?.programme.guard.biz?.name),
    plan.shadow || running?.programme.strategy === 'shadow' ? readShadow(db, key) : undefined,
  ]);
  const arms = [
    { arm: CANDIDATE_ARM, version: plan.cand.version, ranges: undefined },
    ...plan.arms.map(({ name, entry, ranges }) => ({ arm: name, version: entry.version, ranges })),
  ];
  const comparisons = running ? compareArms(state.arms, running.programme.guard) : [];
  const others = plan.arms.reduce((sum, { ranges }) => sum + weightOf(ranges, plan.bp), 0);
  return {
    channel,
    plan: signed,
    programme: running?.programme ?? null,
    status: running?.status ?? 'manual',
    stage: running ? running.stage - running.firstStage : plan.stage,
    stageAt: running?.stageAt ?? 0,
    reason: running?.reason.text ?? 'It has no programme: people decide.',
    devices: {
      exposed: devices.treated,
      control: devices.control,
      silent: state.evidence.silence?.total.treatedBad ?? 0,
    },
    guards: running ? evidenceOf(running, plan, state, looks, devices, now) : [],
    arms: arms.map(({ arm, version, ranges }) => {
      const reward = rewards.find((found) => found.arm === arm);
      const isShown = reward !== undefined && reward.devices >= fewest;
      return {
        arm,
        version,
        weightBp: ranges ? weightOf(ranges, plan.bp) : 10_000 - others,
        devices: isShown ? reward.devices : null,
        reward: isShown ? reward.good / reward.devices : null,
        comparison: isShown ? comparisonOf(comparisons.find((found) => found.arm === arm)) : null,
      };
    }),
    shadow: shadow ? { n: shadow[0], alike: shadow[1], unlike: shadow[2], failed: shadow[3] } : null,
  };
}

function comparisonOf(found: ArmComparison | undefined): RolloutEvidence['arms'][number]['comparison'] {
  if (!found) return null;
  const { verdict, logE, at, text } = found;
  return { verdict, logE, at, text };
}

/** Lists the looks at a stage, oldest first: each, or one of so many and the newest. */
export async function listLooks(
  db: Kysely<Schema>,
  { rollout, stage }: StageKey,
  step = 1,
): Promise<readonly Look[]> {
  const looks = db.selectFrom('guard_look').where('rollout', '=', rollout).where('stage', '=', stage);
  const rows = await looks
    .select('body')
    .where((eb) =>
      eb.or([
        eb(eb('look', '%', step), '=', 0),
        eb(
          'look',
          '=',
          looks.select((max) => max.fn.max('look').as('look')),
        ),
      ]),
    )
    .orderBy('look')
    .execute();
  return rows.map(({ body }) => JSON.parse(body) as Look);
}

/** Lists the stages of a rollout with looks, the first one first. */
export async function listStages(db: Kysely<Schema>, rollout: string): Promise<readonly number[]> {
  const rows = await db
    .selectFrom('guard_look')
    .select('stage')
    .distinct()
    .where('rollout', '=', rollout)
    .orderBy('stage')
    .execute();
  return rows.map(({ stage }) => stage);
}

function evidenceOf(
  running: RunningProgramme,
  plan: ReturnType<typeof readSigned>,
  state: StageState,
  looks: readonly Look[],
  devices: { readonly treated: number; readonly control: number },
  now: number,
): GuardEvidence[] {
  const { rules, treatedShare } = inspectionOf(running, plan, now);
  const { options } = rules;
  const failAt = -Math.log(alphaOf(options, rules.stage));
  const passAt = Math.log(PASS_AT);
  const last = looks.at(-1);
  const isSkewed = last !== undefined && isConsentSkewed(last.inputs);
  const watched = options.guards.filter((guard) => guard === 'biz' || COUNTED_GUARDS.includes(guard));
  const logs = watched.map((guard) => last?.evidence[guard] ?? { fail: 0, pass: 0 });
  const isToBlame = rejectedByEBH(
    logs.map(({ fail }) => fail),
    options.alpha,
  );
  const guards = watched.map((guard, i): GuardEvidence => {
    const log = logs[i] ?? { fail: 0, pass: 0 };
    const total = state.evidence[guard]?.total;
    const treated = total ? { judged: total.treated, bad: total.treatedBad } : bizCounts(state.biz.treated.n);
    const control = total ? { judged: total.control, bad: total.controlBad } : bizCounts(state.biz.control.n);
    const isHeld = isSkewed && FULL_CONSENT_GUARDS.includes(guard);
    const isApart = last?.inputs.isApart === true && guard === 'quality';
    const verdict = isHeld ? 'hold' : verdictOf(guard, log, failAt, isToBlame[i] === true, last);
    return {
      guard,
      required: options.required.includes(guard),
      logEFail: log.fail,
      failAt,
      logEPass: log.pass,
      passAt,
      verdict,
      treated,
      control,
      ratio: total ? ratioOf(total) : null,
      devicesLeft: verdict === 'open' ? leftOf(treated.judged, log, failAt, passAt) : 0,
      text: isHeld
        ? 'People of the two sides agreed to full reports in different shares: this guard cannot compare them.'
        : isApart
          ? APART
          : textOf(guard, treated, control),
      history: looks.map(({ inputs, evidence }) => ({
        at: inputs.at,
        fail: evidence[guard]?.fail ?? 0,
        pass: evidence[guard]?.pass ?? 0,
      })),
    };
  });
  return [...guards, tripwireEvidence(state, last), ...sampleRatio(devices, treatedShare)];
}

function tripwireEvidence({ any }: StageState, last: Look | undefined): GuardEvidence {
  const tripped =
    last?.decision.kind === 'fail' && ['fatal', 'tripwire', 'rejections'].includes(last.decision.by);
  return {
    ...noEvidence,
    guard: 'tripwire',
    required: true,
    verdict: tripped ? 'fail' : 'open',
    treated: { judged: any.treated, bad: any.treatedBad },
    control: { judged: any.control, bad: any.controlBad },
    ratio: ratioOf(any),
    text: tripped ? last.decision.text : 'No tripwire has gone off.',
  };
}

function sampleRatio(
  { treated, control }: { readonly treated: number; readonly control: number },
  share: number | undefined,
): GuardEvidence[] {
  if (share === undefined || share <= 0 || share >= 1) return [];
  const log = logSampleRatio(treated, control, share);
  const limit = Math.log(SAMPLE_RATIO_LIMIT);
  const expected = Math.round((treated + control) * share);
  return [
    {
      ...noEvidence,
      guard: 'sample-ratio',
      required: true,
      logEFail: log,
      failAt: limit,
      verdict: log >= limit ? 'hold' : 'open',
      treated: { judged: treated, bad: 0 },
      control: { judged: control, bad: 0 },
      text: `${treated} devices report the candidate where ${expected} of ${treated + control} were assigned.`,
    },
  ];
}

const noEvidence = {
  logEFail: 0,
  failAt: 0,
  logEPass: 0,
  passAt: 0,
  ratio: null,
  devicesLeft: null,
  history: [],
} as const;

function bizCounts(n: number): GuardEvidence['treated'] {
  return { judged: n, bad: 0 };
}

/** Where a stage has failed, all that is to blame is named, not only what decided. */
function verdictOf(
  guard: GuardName,
  log: { readonly fail: number; readonly pass: number },
  failAt: number,
  isToBlame: boolean,
  last: Look | undefined,
): GuardEvidence['verdict'] {
  if (last?.decision.kind === 'fail' && (isToBlame || last.decision.by === guard)) return 'fail';
  return isProven(log, failAt) ? 'pass' : 'open';
}

/** Goes on along the straight line from no devices to now: evidence grows by so much per device. */
function leftOf(
  judged: number,
  log: { readonly fail: number; readonly pass: number },
  failAt: number,
  passAt: number,
): number | null {
  const left = (value: number, at: number): number =>
    value > 0 && judged > 0 ? Math.max(0, Math.ceil((judged * (at - value)) / value)) : Infinity;
  const nearest = Math.min(left(log.fail, failAt), left(log.pass, passAt));
  return Number.isFinite(nearest) ? nearest : null;
}

function textOf(
  guard: GuardName,
  treated: GuardEvidence['treated'],
  control: GuardEvidence['treated'],
): string {
  const share = ({ judged, bad }: GuardEvidence['treated']): string => `${bad} of ${judged}`;
  return guard === 'biz'
    ? `${treated.judged} devices are compared with ${control.judged} of the control.`
    : `${share(treated)} devices are worse off with the candidate, and ${share(control)} in the control.`;
}
