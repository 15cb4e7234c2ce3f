/** Programmes as the database keeps them. What is in force is in the signed plan. */

import type { Kysely } from 'kysely';
import { StoreError } from '../../core/errors.ts';
import type { Plan } from '../../update/plan.ts';
import type { ProgrammeTable, Schema } from '../db/schema.ts';
import { REPORT_PERIOD_S } from './defaults.ts';
import type { Inspection } from './inspect.ts';
import type { Programme, ProgrammeStatus, Stage } from './programme.ts';

/** Why a programme stands where it stands. */
export interface Reason {
  /** One sentence. */
  readonly text: string;
  /** Guard or rule that decided, or who did something. */
  readonly by: string;
  readonly at: number;
}

/** A programme with where it stands. */
export interface RunningProgramme {
  readonly rollout: string;
  readonly channel: string;
  readonly model: string;
  readonly version: string;
  readonly programme: Programme;
  /** Stage of the plan with which the programme began: a rollout may have had another programme before. */
  readonly firstStage: number;
  /** Stage of the plan. */
  readonly stage: number;
  readonly status: ProgrammeStatus;
  readonly reason: Reason;
  readonly stageAt: number;
}

type Body = Programme & { readonly firstStage: number };

/** The stage of a programme that is in force. */
function stageOf({ programme, stage, firstStage }: RunningProgramme): Stage {
  const found = programme.stages[Math.min(stage - firstStage, programme.stages.length - 1)];
  if (found) return found;
  throw new StoreError(
    'ERR_INLAY_STORE_IO',
    'A programme in the database has no stages; restore it from a backup.',
  );
}

/** Tells whether no stage follows. */
export function isLastStage({ programme, stage, firstStage }: RunningProgramme): boolean {
  return stage - firstStage >= programme.stages.length - 1;
}

/** What a look at the present stage needs to know. */
export function inspectionOf(running: RunningProgramme, plan: Plan, now: number): Inspection {
  const { rollout, stage, stageAt, programme, firstStage } = running;
  const limits = stageOf(running);
  const control = Math.min(plan.ctl, 10_000 - plan.bp);
  const periodMs = (plan.report?.everyS ?? REPORT_PERIOD_S) * 1000;
  // Who begins with the candidate says so at once, and the control with its next report.
  const isFilling = now < stageAt + (limits.durationS ?? 0) * 1000 + 2 * periodMs;
  return {
    rollout,
    stage,
    stageAt,
    periodMs,
    ...(control > 0 && plan.bp > 0 && !isFilling && { treatedShare: plan.bp / (plan.bp + control) }),
    rules: {
      strategy: programme.strategy,
      stage: stage - firstStage,
      stages: programme.stages.length,
      options: programme.guard,
      limits,
      inconclusive: programme.inconclusive,
      soakOnly: programme.soakOnly,
    },
  };
}

/** Lists programmes, newest first. */
export async function listProgrammes(
  db: Kysely<Schema>,
  where: {
    readonly channel?: string;
    readonly model?: string;
    readonly status?: readonly ProgrammeStatus[];
  } = {},
): Promise<readonly RunningProgramme[]> {
  let query = db.selectFrom('programme').selectAll().orderBy('updated_at', 'desc').orderBy('rollout');
  if (where.channel !== undefined) query = query.where('channel', '=', where.channel);
  if (where.model !== undefined) query = query.where('model', '=', where.model);
  if (where.status !== undefined) query = query.where('status', 'in', [...where.status]);
  return (await query.execute()).map(fromRow);
}

/** Adds a programme, in the place of an earlier one of the same rollout. */
export async function addProgramme(
  db: Kysely<Schema>,
  running: RunningProgramme,
  now: number,
): Promise<void> {
  const { programme, firstStage, stageAt, reason, ...rest } = running;
  const body: Body = { ...programme, firstStage };
  const row = {
    ...rest,
    body: JSON.stringify(body),
    reason: JSON.stringify(reason),
    stage_at: stageAt,
    updated_at: now,
  };
  await db
    .insertInto('programme')
    .values(row)
    .onConflict((conflict) => conflict.column('rollout').doUpdateSet(row))
    .execute();
}

/**
 * Moves a programme on, if nobody else has since it was read.
 * @returns how it stands then; `undefined` if somebody has.
 */
export async function moveProgramme(
  db: Kysely<Schema>,
  running: RunningProgramme,
  to: { readonly status?: ProgrammeStatus; readonly stage?: number; readonly reason: Reason },
): Promise<RunningProgramme | undefined> {
  const { status = running.status, stage = running.stage, reason } = to;
  const stageAt = stage === running.stage ? running.stageAt : reason.at;
  const { numUpdatedRows } = await db
    .updateTable('programme')
    .set({ status, stage, reason: JSON.stringify(reason), stage_at: stageAt, updated_at: reason.at })
    .where('rollout', '=', running.rollout)
    .where('stage', '=', running.stage)
    .where('status', '=', running.status)
    .executeTakeFirst();
  return numUpdatedRows === 1n ? { ...running, status, stage, stageAt, reason } : undefined;
}

function fromRow(row: ProgrammeTable): RunningProgramme {
  const { rollout, channel, model, version, stage } = row;
  const { firstStage, ...programme } = JSON.parse(row.body) as Body;
  return {
    rollout,
    channel,
    model,
    version,
    programme,
    firstStage,
    stage,
    status: row.status as ProgrammeStatus,
    reason: JSON.parse(row.reason) as Reason,
    stageAt: row.stage_at,
  };
}
