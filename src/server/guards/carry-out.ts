/** Carries a programme out: looks, and signs what follows. */

import { setImmediate } from 'node:timers/promises';
import type { Kysely } from 'kysely';
import { isInlayError } from '../../core/errors.ts';
import { readSigned } from '../../publish/rollout.ts';
import type { Plan, SignedPlan } from '../../update/plan.ts';
import type { Catalog, ChangeCondition } from '../catalog.ts';
import { plansOf } from '../channels.ts';
import { isSame } from '../plan-changes.ts';
import { appendAudit } from '../db/audit.ts';
import type { Schema } from '../db/schema.ts';
import { inTransaction } from '../db/transaction.ts';
import type { Fence } from '../jobs/job.ts';
import type { Decision } from './decide.ts';
import type { GuardEvent } from './events.ts';
import { inspect } from './inspect.ts';
import type { ProgrammeStatus } from './programme.ts';
import { inspectionOf, isLastStage, moveProgramme, type RunningProgramme } from './programmes.ts';
import { requestOf } from './stage-request.ts';

/** What carries programmes out. */
export interface CarryOutParts {
  readonly db: Kysely<Schema>;
  readonly catalog: Catalog;
  readonly onError: (error: unknown) => void;
  readonly onEvent: (event: GuardEvent) => void;
}

/** Looks that one run takes at one stage at most. */
const mostLooks = 200;

/** Who signs and writes what the guards decide. */
const actor = 'guard';

/** Goes one step on with a programme, as far as the evidence carries. */
export async function carryOut(
  parts: CarryOutParts,
  running: RunningProgramme,
  { now, quietUntil }: { readonly now: number; readonly quietUntil: number },
  signal: AbortSignal,
  fence?: Fence,
): Promise<void> {
  const signed = await planOf(parts.catalog, running);
  const present = await reconcile(parts, running, signed && readSigned(signed), now);
  if (!present || !signed) return;
  const plan = readSigned(signed);
  const inspection = { ...inspectionOf(present, plan, now), quietUntil };
  for (let look = 0; look < mostLooks && !signal.aborted; look += 1) {
    const taken = await inspect(parts.db, inspection, now, fence);
    if (!taken) return;
    if (taken.decision.kind === 'fail' || !taken.isMore) {
      await follow(parts, present, signed, taken.decision, now);
      return;
    }
    // Reports are to be taken in meanwhile.
    await setImmediate();
  }
}

/** Finds the plan of a programme; `undefined` if another rollout has taken its place. */
export async function planOf(
  catalog: Catalog,
  { channel, rollout }: Pick<RunningProgramme, 'channel' | 'rollout'>,
): Promise<SignedPlan | undefined> {
  const { published } = await catalog.state();
  return plansOf(published?.channels ?? {}, channel).find(({ id }) => id === rollout);
}

/** Takes over what has happened to the plan: it is the truth, and people and other replicas sign plans, too. */
async function reconcile(
  parts: CarryOutParts,
  running: RunningProgramme,
  plan: Plan | undefined,
  now: number,
): Promise<RunningProgramme | undefined> {
  const end = async (text: string): Promise<undefined> => {
    await move(parts, running, 'ended', { by: 'plan', text }, now);
  };
  if (!plan) return end('Another rollout took its place.');
  if (plan.state === 'rolledback') return end('It was rolled back.');
  if (plan.state === 'complete' && !isLastStage(running)) return end('It was promoted to all devices.');
  // Signed, and not noted any more before the process ended.
  if (plan.stage > running.stage) {
    const { reason } = running;
    return moveProgramme(parts.db, running, {
      stage: plan.stage,
      status: isOnItsWay(plan) ? 'running' : 'held',
      reason: { ...reason, at: now },
    });
  }
  return running;
}

async function follow(
  parts: CarryOutParts,
  running: RunningProgramme,
  signed: SignedPlan,
  decision: Decision,
  now: number,
): Promise<void> {
  const plan = readSigned(signed);
  const { kind, by, text } = decision;
  if (kind === 'wait') {
    if (running.status === 'held' && isOnItsWay(plan))
      await move(parts, running, 'running', { by, text }, now);
    else await note(parts, running, decision, now);
    return;
  }
  if (kind === 'hold') {
    await hold(parts, running, decision, now);
    return;
  }
  if (kind === 'pass' && !isOnItsWay(plan)) {
    await hold(
      parts,
      running,
      { ...decision, text: `${text} The rollout is ${plan.state}; resume it to go on.` },
      now,
    );
    return;
  }
  try {
    if (kind === 'fail') await fail(parts, running, signed, decision, now);
    else await advance(parts, running, decision, now, { decidedOn: signed });
  } catch (error) {
    // Whatever a person did while this was decided goes before it; the next look takes it over.
    const present = await planOf(parts.catalog, running);
    if (!present || !isSame(present, signed)) return;
    // It is tried again at the next look, and says so until then.
    const why = isInlayError(error) ? error.message : 'the database or the signer failed.';
    await hold(parts, running, { ...decision, by, text: `${text} It could not be carried out: ${why}` }, now);
    parts.onError(error);
  }
}

/** Nobody has stopped it. */
function isOnItsWay({ state }: Plan): boolean {
  return state === 'ramp' || state === 'complete';
}

async function fail(
  parts: CarryOutParts,
  running: RunningProgramme,
  signed: SignedPlan,
  decision: Decision,
  now: number,
): Promise<void> {
  const { channel, model, programme } = running;
  const plan = readSigned(signed);
  // What everybody has can only be taken back.
  const halting = plan.state === 'complete' ? 'rollback' : 'halt';
  const action = { hold: 'pause', halt: halting, rollback: 'rollback' }[programme.onFail] as
    | 'pause'
    | 'halt'
    | 'rollback';
  const isDone = action === 'halt' ? plan.state === 'halted' : action === 'pause' && plan.state !== 'ramp';
  if (!isDone) {
    const reason = decision.text.slice(0, 500);
    await parts.catalog.changeRollout({ channel, model, action, reason, decidedOn: signed }, actor);
  }
  await move(parts, running, 'failed', decision, now);
}

/** Signs the next stage, or ends with the last one. */
export async function advance(
  parts: CarryOutParts,
  running: RunningProgramme,
  { by, text }: Pick<Decision, 'text'> & { readonly by: string },
  now: number,
  { who = actor, ...condition }: ChangeCondition & { readonly who?: string } = {},
): Promise<RunningProgramme | undefined> {
  const { channel, model, version, programme, firstStage, rollout } = running;
  if (isLastStage(running)) {
    if (programme.stages.at(-1)?.bp === 10_000 && programme.strategy !== 'shadow') {
      const everybody = { channel, model, version, percent: 100, reason: text.slice(0, 500) };
      await parts.catalog.setRollout({ ...everybody, ...condition }, who);
    }
    return move(parts, running, 'ended', { by, text }, now);
  }
  const stage = running.stage + 1;
  const isLast = programme.stages[stage - firstStage]?.bp === 10_000;
  const request = {
    ...{ channel, model, version, programme, index: stage - firstStage, stage, reason: text },
    ...(isLast && { startAt: now }),
  };
  const asked = await requestOf(parts.db, request, { rollout, stage: running.stage });
  await parts.catalog.setRollout({ ...asked, ...condition }, who);
  return move(parts, running, 'running', { by, text }, now, stage);
}

/** Notes that people are needed; once, as long as it is for the same reason. */
async function hold(
  parts: CarryOutParts,
  running: RunningProgramme,
  decision: Decision,
  now: number,
): Promise<void> {
  if (running.status === 'held' && running.reason.by === decision.by) {
    await note(parts, running, decision, now);
    return;
  }
  const { channel, model, version, rollout, stage } = running;
  const details = { channel, model, version, rollout, stage, by: decision.by, reason: decision.text };
  await inTransaction(parts.db, (tx) => appendAudit(tx, { actor, action: 'hold', details }, now));
  await move(parts, running, 'held', decision, now);
}

/** Keeps the text up to date without a word to anybody. */
async function note(
  parts: CarryOutParts,
  running: RunningProgramme,
  { by, text }: Decision,
  now: number,
): Promise<void> {
  if (running.reason.text === text) return;
  await moveProgramme(parts.db, running, { reason: { by, text, at: now } });
}

const kinds = { running: 'resumed', held: 'held', failed: 'failed', ended: 'ended' } as const;

/** Moves a programme on and says so. */
export async function move(
  { db, onEvent }: Pick<CarryOutParts, 'db' | 'onEvent'>,
  running: RunningProgramme,
  status: ProgrammeStatus,
  { by, text }: { readonly by: string; readonly text: string },
  now: number,
  stage: number = running.stage,
): Promise<RunningProgramme | undefined> {
  const moved = await moveProgramme(db, running, { status, stage, reason: { by, text, at: now } });
  if (!moved) return undefined;
  const { channel, model, version, rollout } = moved;
  const kind = stage === running.stage ? kinds[status] : 'advanced';
  onEvent({ kind, at: now, channel, model, version, rollout, stage, status, by, text });
  return moved;
}
