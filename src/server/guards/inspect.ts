/** Looks at a stage: reads what is due, judges it, and keeps evidence and log in one transaction. */

import type { Kysely } from 'kysely';
import { addValue, NO_MOMENTS } from '../../stats/confidence-sequence.ts';
import { addCounts, NO_COUNTS, type Counts, type Evidence } from '../../stats/e-process.ts';
import { CONTROL_ARM } from '../../update/arms.ts';
import type { Schema } from '../db/schema.ts';
import { inTransaction } from '../db/transaction.ts';
import type { Fence } from '../jobs/job.ts';
import { addOutcomes, type ArmOutcome } from './compare-arms.ts';
import type { Decision } from './decide.ts';
import { FULL_CONSENT_GUARDS } from './defaults.ts';
import { waitsFrom } from './hearing.ts';
import { newStage, takeLook, type Look, type LookInputs, type StageRules, type StageState } from './look.ts';
import { areApart, inBins, profilesOf, readBins, withSeen } from './output-bins.ts';
import type { GuardName } from './programme.ts';
import { readShadow } from './shadow-counts.ts';
import {
  countDevices,
  countHit,
  hasCalls,
  HEARD,
  listDue,
  PHASES,
  readLoss,
  RIPE,
  writeVerdicts,
  type Due,
  type JudgedDevice,
  type PendingDevice,
  type StageKey,
} from './stage-devices.ts';
import { bizOf, compareWith, isRipe, NO_REFERENCES, type References, type Verdict } from './verdicts.ts';

/** Most devices that one look judges: more make several looks. */
const mostPerLook = 1000;
const pageSize = 500;

/** Where a stage stands. */
export interface StageRecord {
  readonly state: StageState;
  readonly references: References;
  /** Of the newest look. */
  readonly decision?: Pick<Decision, 'kind' | 'by'>;
}

/** What a look needs to know besides the devices. */
export interface Inspection extends StageKey {
  readonly rules: StageRules;
  readonly stageAt: number;
  /** Between two reports of a device, milliseconds. */
  readonly periodMs: number;
  readonly treatedShare?: number;
  /** Until when no device could be heard of, milliseconds since 1970. Default 0: always. */
  readonly quietUntil?: number;
}

/** Reads where a stage stands. */
export async function readStage(db: Kysely<Schema>, { rollout, stage }: StageKey): Promise<StageRecord> {
  const rows = await db
    .selectFrom('guard_state')
    .select(['guard', 'body'])
    .where('rollout', '=', rollout)
    .where('stage', '=', stage)
    .execute();
  const evidence: Partial<Record<GuardName, Evidence>> = {};
  let rest: Omit<StageRecord, 'state'> & { readonly state: Omit<StageState, 'evidence'> } = {
    state: newStage(),
    references: NO_REFERENCES,
  };
  for (const { guard, body } of rows) {
    if (guard === stageRow) rest = JSON.parse(body) as typeof rest;
    else evidence[guard as GuardName] = JSON.parse(body) as Evidence;
  }
  return { ...rest, state: { ...rest.state, evidence } };
}

/**
 * Takes one look. It is logged if it judged devices or comes to something else than the one before.
 * @returns the decision, and whether more devices are due; `undefined` if another replica looked meanwhile.
 */
export async function inspect(
  db: Kysely<Schema>,
  inspection: Inspection,
  now: number,
  fence?: Fence,
): Promise<{ readonly decision: Decision; readonly isMore: boolean } | undefined> {
  const record = await readStage(db, inspection);
  const { devices, full } = await countDevices(db, inspection);
  const { any } = record.state;
  // Until half of all are judged, those that came to it by their calls are the fastest ones, and no match for who gave up.
  const areMostJudged = 2 * (any.treated + any.control) >= devices.treated + devices.control;
  const earlyUntil = areMostJudged ? now - 2 * inspection.periodMs : -Infinity;
  const found = await judgeDue(db, inspection, record.references, now, earlyUntil);
  const { rules, stageAt, treatedShare } = inspection;
  const needsFull = FULL_CONSENT_GUARDS.some((guard) => rules.options.guards.includes(guard));
  const [fatal, rejected, isCalled, loss] = await Promise.all([
    countHit(db, inspection, 'fatals'),
    countHit(db, inspection, 'rejections'),
    record.state.any.treated > 0 || hasCalls(db, inspection),
    readLoss(db, inspection),
  ]);
  const shadow = rules.strategy === 'shadow' ? await readShadow(db, inspection) : undefined;
  const inputs: LookInputs = {
    at: now,
    stageAt,
    rules,
    ...found.counts,
    devices,
    fatal,
    rejected,
    ...(needsFull && { full }),
    hasCalls: isCalled,
    ...(treatedShare !== undefined && { treatedShare }),
    loss,
    ...(areApart(found.references.bins) && { isApart: true as const }),
    ...(shadow && { shadow }),
  };
  const { state, look } = takeLook(record.state, inputs);
  const { decision } = look;
  const isNews = decision.kind !== record.decision?.kind || decision.by !== record.decision.by;
  if (found.judged.length === 0 && !isNews) return { decision, isMore: false };
  const next = { state, references: found.references, decision: { kind: decision.kind, by: decision.by } };
  const isKept = await keep(db, inspection, next, look, found.judged, now, fence);
  return isKept ? { decision, isMore: found.isMore } : undefined;
}

const stageRow = 'stage';

interface Found {
  readonly counts: Pick<LookInputs, 'judged' | 'any' | 'biz' | 'arms'>;
  readonly judged: readonly JudgedDevice[];
  readonly references: References;
  readonly isMore: boolean;
}

async function judgeDue(
  db: Kysely<Schema>,
  inspection: Inspection,
  before: References,
  now: number,
  earlyUntil: number,
): Promise<Found> {
  const { options } = inspection.rules;
  const { calls } = options;
  const { periodMs, quietUntil = 0 } = inspection;
  const due = { now, calls, periodMs, quietUntil };
  const judged: Partial<Record<GuardName, Record<string, Counts>>> = {};
  const done: JudgedDevice[] = [];
  let any: Counts = NO_COUNTS;
  let biz = { treated: NO_MOMENTS, control: NO_MOMENTS };
  let arms: Readonly<Record<string, ArmOutcome>> = {};
  const isToHear = (device: PendingDevice): boolean =>
    device.judged_at !== HEARD && isSilenceDue(device, due);
  const isToJudge = (device: PendingDevice): boolean =>
    device.judged_at !== RIPE && isRipe(device, calls, now, earlyUntil);
  const { pending, isMore } = await listAll(
    (phase, after) => listDue(db, inspection, due, phase, after, pageSize),
    (device) => isToHear(device) || isToJudge(device),
  );
  const bins = await readBins(db, new Set(pending.flatMap(({ outputs }) => profilesOf(outputs))));
  const devices = pending.map((device) => ({ ...device, outputs: inBins(device.outputs, bins) }));
  const ripe = devices.filter(isToJudge);
  const comparison = compareWith(
    before,
    ripe.filter(({ arm }) => arm === CONTROL_ARM),
  );
  const references: References = { ...comparison.next, bins: withSeen(before.bins, ripe) };
  const count = (guard: GuardName, { bad, stratum }: Verdict, arm: string): void => {
    if (!options.guards.includes(guard)) return;
    const strata = (judged[guard] ??= {});
    strata[stratum] = addCounts(strata[stratum] ?? NO_COUNTS, countOf(arm, bad));
  };
  const judgeDevice = (device: PendingDevice): void => {
    const verdicts: Record<string, 0 | 1> =
      device.verdicts === '' ? {} : (JSON.parse(device.verdicts) as Record<string, 0 | 1>);
    let { judged_at: phase } = device;
    if (isToHear(device)) {
      const bad = device.last_at <= startOf(device) ? 1 : 0;
      verdicts['silence'] = bad;
      count('silence', { bad, stratum: '' }, device.arm);
      phase = phase === RIPE ? now : HEARD;
    }
    if (isToJudge(device)) {
      const found = comparison.judge(device, options);
      let isBad: 0 | 1 = 0;
      for (const [name, verdict] of Object.entries(found)) {
        verdicts[name] = verdict.bad;
        count(name as GuardName, verdict, device.arm);
        const isAlarm = options.guards.includes(name as GuardName) && comparison.isEven(name as GuardName);
        if (verdict.bad === 1 && isAlarm) isBad = 1;
      }
      any = addCounts(any, countOf(device.arm, isBad));
      const value = options.biz && bizOf(device, options.biz.name);
      if (value !== undefined) {
        const side = device.arm === CONTROL_ARM ? 'control' : 'treated';
        biz = { ...biz, [side]: addValue(biz[side], value) };
      }
      if (inspection.rules.strategy === 'ab') {
        const worth = value === undefined ? NO_MOMENTS : addValue(NO_MOMENTS, value);
        arms = addOutcomes(arms, { [device.arm]: { judged: 1, bad: isBad, biz: worth } });
      }
      phase = phase === HEARD ? now : RIPE;
    }
    if (phase !== device.judged_at) {
      done.push({ dev: device.dev, verdicts: JSON.stringify(verdicts), judgedAt: phase });
    }
  };

  for (const device of devices) judgeDevice(device);
  const values = biz.treated.n + biz.control.n > 0 && { biz };
  const outcomes = Object.keys(arms).length > 0 && { arms };
  return { counts: { judged, any, ...values, ...outcomes }, judged: done, references, isMore };
}

/** Lists devices, page by page, until there are enough of those that are due. @returns whether it ended before all were. */
async function listAll(
  list: (phase: number, after: string) => Promise<readonly PendingDevice[]>,
  isDue: (device: PendingDevice) => boolean,
): Promise<{ readonly pending: readonly PendingDevice[]; readonly isMore: boolean }> {
  const pending: PendingDevice[] = [];
  for (const phase of PHASES) {
    let page: readonly PendingDevice[] = [];
    do {
      if (pending.length >= mostPerLook) return { pending, isMore: true };
      page = await list(phase, page.at(-1)?.dev ?? '');
      pending.push(...page.filter(isDue));
    } while (page.length === pageSize);
  }
  return { pending, isMore: false };
}

/** Keeps a look, all or nothing. @returns whether it was the next one. */
function keep(
  db: Kysely<Schema>,
  key: StageKey,
  { state, references, decision }: StageRecord,
  look: Look,
  judged: readonly JudgedDevice[],
  now: number,
  fence: Fence | undefined,
): Promise<boolean> {
  const { rollout, stage } = key;
  const { evidence, ...rest } = state;
  const body = JSON.stringify(look);
  return inTransaction(db, async (tx, attempt) => {
    await fence?.assertHeld(tx);
    // The number of the look decides between two replicas.
    const { numInsertedOrUpdatedRows } = await tx
      .insertInto('guard_look')
      .values({ rollout, stage, look: state.look, at: now, decision: look.decision.kind, body })
      .onConflict((conflict) => conflict.columns(['rollout', 'stage', 'look']).doNothing())
      .executeTakeFirst();
    if (numInsertedOrUpdatedRows !== 1n) return attempt > 1 && (await isLogged(tx, key, state.look, body));
    const rows = [
      { guard: stageRow, body: JSON.stringify({ state: rest, references, decision }) },
      ...Object.entries(evidence).map(([guard, value]) => ({ guard, body: JSON.stringify(value) })),
    ];
    await tx
      .insertInto('guard_state')
      .values(rows.map((row) => ({ rollout, stage, updated_at: now, ...row })))
      .onConflict((conflict) =>
        conflict.columns(['rollout', 'stage', 'guard']).doUpdateSet((eb) => ({
          body: eb.ref('excluded.body'),
          updated_at: eb.ref('excluded.updated_at'),
        })),
      )
      .execute();
    await writeVerdicts(tx, key, judged);
    return true;
  });
}

async function isLogged(
  db: Kysely<Schema>,
  { rollout, stage }: StageKey,
  look: number,
  body: string,
): Promise<boolean> {
  const row = await db
    .selectFrom('guard_look')
    .select('body')
    .where('rollout', '=', rollout)
    .where('stage', '=', stage)
    .where('look', '=', look)
    .executeTakeFirst();
  return row?.body === body;
}

/**
 * When a device was to be heard of again does not depend on whether it was: otherwise silent ones would be counted before
 * the others, and more of them in the arm that began later.
 */
function isSilenceDue(device: PendingDevice, { now, periodMs, quietUntil }: Due): boolean {
  return now - waitsFrom(startOf(device), quietUntil) >= Math.max(2 * periodMs, 2 * device.gap);
}

function startOf(device: PendingDevice): number {
  return Math.max(device.first_at, device.activated_at);
}

function countOf(arm: string, bad: 0 | 1): Counts {
  return arm === CONTROL_ARM
    ? { ...NO_COUNTS, control: 1, controlBad: bad }
    : { ...NO_COUNTS, treated: 1, treatedBad: bad };
}
