/** Carries rollouts out by themselves: starts programmes, judges their stages, and goes on, halts or takes back. */

import type { Kysely } from 'kysely';
import { ServerError } from '../../core/errors.ts';
import type { Platform } from '../../core/platform.ts';
import { readSigned, type RolloutAction } from '../../publish/rollout.ts';
import type { SignedPlan } from '../../update/plan.ts';
import type { RolloutEvidence, StagePower } from '../api/answers.ts';
import type { Catalog } from '../catalog.ts';
import { plansOf } from '../channels.ts';
import type { Schema } from '../db/schema.ts';
import type { Job } from '../jobs/job.ts';
import type { PlanOptions } from '../rollout-body.ts';
import { advance, carryOut, move, planOf, type CarryOutParts } from './carry-out.ts';
import type { GuardEvent } from './events.ts';
import { listLooks, listStages, readEvidence } from './evidence.ts';
import { withFigures } from './figures.ts';
import { readQuiet } from './hearing.ts';
import { recompute } from './look.ts';
import { addProgramme, listProgrammes, type RunningProgramme } from './programmes.ts';
import { readProgramme } from './read-programme.ts';
import { stagePowers } from './stage-power.ts';
import { requestOf } from './stage-request.ts';

export type { GuardEvent } from './events.ts';

/** What is to be rolled out by itself. */
export interface StartRequest {
  readonly channel: string;
  readonly model: string;
  readonly version: string;
  /** A {@link ProgrammeInput}; it is checked. */
  readonly programme: unknown;
  /** What the plans of all its stages say besides. */
  readonly options?: PlanOptions;
  /** For the audit log. */
  readonly reason?: string;
}

/**
 * What people do to a programme. `advance`: the next stage, whatever the evidence. `promote`: everybody at once, past all
 * stages (break-glass). Both need a reason.
 */
export type GuardAction = Exclude<RolloutAction, 'retry'> | 'advance' | 'unpin';

/** What was asked to be done to a programme. */
export interface GuardActionRequest {
  readonly channel: string;
  readonly model: string;
  readonly action: GuardAction;
  readonly reason?: string;
}

/** Rollouts that are carried out by themselves. */
export interface Guards {
  /**
   * Starts a programme with its first stage. An open one of another version ends.
   * @param actor - for the audit log, here and below.
   * @throws {@link ServerError} `ERR_INLAY_REFUSED` if the programme cannot be carried out, `ERR_INLAY_CONFLICT` if one of
   * this version is under way or the model is pinned, `ERR_INLAY_NOT_FOUND` if there is no such release.
   */
  start(request: StartRequest, actor: string): Promise<RolloutEvidence>;
  /**
   * Does something to the rollout of a model, with or without a programme.
   * @throws {@link ServerError} `ERR_INLAY_REFUSED` without a reason where one is needed, `ERR_INLAY_CONFLICT` where its state
   * does not allow it, `ERR_INLAY_NOT_FOUND` if there is none.
   */
  act(request: GuardActionRequest, actor: string): Promise<RolloutEvidence>;
  /** Tells what is known of the rollouts, of all channels and models or some. */
  evidence(channel?: string, model?: string): Promise<readonly RolloutEvidence[]>;
  /**
   * Tells what the stages of a programme can find out.
   * @param programme - a {@link ProgrammeInput}; it is checked.
   * @param fleet - devices that report.
   * @throws {@link ServerError} `ERR_INLAY_REFUSED`
   */
  power(programme: unknown, fleet: number): Promise<readonly StagePower[]>;
  /**
   * Computes the verdicts of a stage of a plan again from its log.
   * @returns how many looks there are, and the numbers, from 1, of those that do not follow from what was seen.
   */
  verify(
    rollout: string,
    stage: number,
  ): Promise<{ readonly looks: number; readonly broken: readonly number[] }>;
  /** Lists the stages of the plans of a rollout of which looks are in the log, the first one first. */
  lookedAt(rollout: string): Promise<readonly number[]>;
  /** Looks at every programme that is under way. */
  readonly job: Job;
}

/** What {@link createGuards} needs. */
export interface GuardsParts {
  readonly db: Kysely<Schema>;
  readonly catalog: Catalog;
  readonly platform: Pick<Platform, 'now'>;
  /** Milliseconds from one look to the next. Default 60,000. */
  readonly lookEveryMs?: number;
  /** Gets what one programme failed of; the others go on. */
  readonly onError: (error: unknown) => void;
  /** Hears what happens to programmes. */
  readonly onEvent?: (event: GuardEvent) => void;
}

/** Programmes that are looked at. */
const open = ['running', 'held'] as const;

/** Creates the guards over a catalog. */
export function createGuards(given: GuardsParts): Guards {
  const { db, catalog, platform, lookEveryMs = 60_000, onError, onEvent } = given;
  const parts: CarryOutParts = { db, catalog, onError, onEvent: onEvent ?? (() => undefined) };

  const planFor = async (channel: string, model: string): Promise<SignedPlan | undefined> => {
    const { published } = await catalog.state();
    return plansOf(published?.channels ?? {}, channel).find((plan) => plan.model === model);
  };

  const openProgramme = async (channel: string, model: string): Promise<RunningProgramme | undefined> => {
    const [found] = await listProgrammes(db, { channel, model, status: open });
    return found;
  };

  const evidenceFor = async (channel: string, model: string): Promise<RolloutEvidence> => {
    const [found] = await evidence(channel, model);
    if (found) return found;
    throw new ServerError(
      'ERR_INLAY_NOT_FOUND',
      `Model ${model} has no rollout in channel ${channel}; start one with \`inlay rollout start\`.`,
      { details: { channel, model } },
    );
  };

  const start = async (request: StartRequest, actor: string): Promise<RolloutEvidence> => {
    const { channel, model, version, options = {}, reason = 'A programme was started.' } = request;
    const programme = readProgramme(request.programme);
    if (options.rules && programme.stages.some(({ rules }) => rules)) throw twoRules(channel, model);
    const [before, present] = [await openProgramme(channel, model), await planFor(channel, model)];
    const isSame = present?.cand.version === version && present.state !== 'rolledback';
    if (before?.version === version && isSame) {
      throw new ServerError(
        'ERR_INLAY_CONFLICT',
        `The rollout of ${model} ${version} has a programme that is ${before.status}; ` +
          'advance, promote or roll it back, or start one for another version.',
        { details: { channel, model, version } },
      );
    }
    const firstStage = isSame ? (present.stage ?? 0) + 1 : 0;
    const now = platform.now();
    const stageAt = Math.max(now, programme.startAt ?? now);
    const isTimed = programme.startAt !== undefined || programme.stages[0]?.bp === 10_000;
    const isEverywhere = isSame && present.state === 'complete';
    const stage = {
      ...{ channel, model, version, programme, index: 0, stage: firstStage, reason },
      ...(isTimed && !isEverywhere && { startAt: stageAt }),
    };
    const { id: rollout } = await catalog.setRollout({ ...options, ...(await requestOf(db, stage)) }, actor);
    if (before) await move(parts, before, 'ended', { by: actor, text: `${version} took its place.` }, now);
    const text = `It was started by ${actor}.`;
    const started = {
      rollout,
      channel,
      model,
      version,
      programme,
      firstStage,
      stage: firstStage,
      stageAt,
    };
    await addProgramme(db, { ...started, status: 'running', reason: { by: actor, text, at: now } }, now);
    parts.onEvent({ kind: 'started', at: now, ...started, status: 'running', by: actor, text });
    return evidenceFor(channel, model);
  };

  const act = async (request: GuardActionRequest, actor: string): Promise<RolloutEvidence> => {
    const { channel, model, action, reason } = request;
    const needsReason = action === 'advance' || action === 'promote';
    if (needsReason && (reason === undefined || reason.trim() === '')) {
      throw new ServerError(
        'ERR_INLAY_REFUSED',
        `To ${action} goes round what the guards have to say; say why in \`reason\`.`,
        { details: { channel, model, action } },
      );
    }
    const running = await openProgramme(channel, model);
    const now = platform.now();
    const text = `${action} by ${actor}${reason === undefined ? '.' : `: ${reason}`}`;
    if (action === 'advance') {
      if (!running) throw noProgramme(channel, model);
      const decidedOn = await planOf(catalog, running);
      // A programme whose plan is gone or taken back has not noted that yet.
      if (!decidedOn || decidedOn.state === 'rolledback') throw noProgramme(channel, model);
      const known = `${action} by ${actor}: ${await withFigures(db, running, reason)}`;
      await advance(parts, running, { by: actor, text: known }, now, { who: actor, decidedOn });
    } else if (action === 'unpin') {
      const plan = await planFor(channel, model);
      if (!plan?.pinned) throw notPinned(channel, model);
      const { version } = plan.cand;
      const kept = { percent: readSigned(plan).bp / 100, pinned: false };
      await catalog.setRollout(
        { channel, model, version, ...kept, ...(reason !== undefined && { reason }) },
        actor,
      );
    } else {
      const known = running ? await withFigures(db, running, reason) : reason;
      await catalog.changeRollout(
        { channel, model, action, ...(known !== undefined && { reason: known }) },
        actor,
      );
      const status = {
        pause: 'held',
        resume: 'running',
        halt: 'held',
        promote: 'ended',
        rollback: 'ended',
      } as const;
      if (running && (await planOf(catalog, running))) {
        await move(parts, running, status[action], { by: actor, text }, now);
      }
    }
    return evidenceFor(channel, model);
  };

  const evidence = async (channel?: string, model?: string): Promise<readonly RolloutEvidence[]> => {
    const { published } = await catalog.state();
    const programmes = new Map((await listProgrammes(db)).map((running) => [running.rollout, running]));
    const now = platform.now();
    const found: RolloutEvidence[] = [];
    for (const [name, plans] of Object.entries(published?.channels ?? {})) {
      if (channel !== undefined && name !== channel) continue;
      for (const plan of plans) {
        if (model !== undefined && plan.model !== model) continue;
        found.push(await readEvidence(db, name, plan, programmes.get(plan.id), now));
      }
    }
    return found;
  };

  return {
    start,
    act,
    evidence,
    power: async (programme, fleet) => stagePowers(readProgramme(programme), Math.max(0, Math.floor(fleet))),
    verify: async (rollout, stage) => {
      const looks = await listLooks(db, { rollout, stage });
      return { looks: looks.length, broken: recompute(looks) };
    },
    lookedAt: (rollout) => listStages(db, rollout),
    job: {
      name: 'guards',
      everyMs: lookEveryMs,
      run: async (now, signal, fence) => {
        const quietUntil = await readQuiet(db, now);
        for (const running of await listProgrammes(db, { status: open })) {
          if (signal.aborted) return;
          try {
            await carryOut(parts, running, { now, quietUntil }, signal, fence);
          } catch (error) {
            onError(error);
          }
        }
      },
    },
  };
}

function noProgramme(channel: string, model: string): ServerError {
  return new ServerError(
    'ERR_INLAY_CONFLICT',
    `The rollout of ${model} has no programme under way, and so no next stage; set its share instead.`,
    { details: { channel, model } },
  );
}

function twoRules(channel: string, model: string): ServerError {
  return new ServerError(
    'ERR_INLAY_REFUSED',
    'The stages of the programme have rules of their own; leave the option rules out, or theirs.',
    { details: { channel, model } },
  );
}

function notPinned(channel: string, model: string): ServerError {
  return new ServerError(
    'ERR_INLAY_CONFLICT',
    `${model} is not pinned in channel ${channel}; nothing to unpin.`,
    {
      details: { channel, model },
    },
  );
}
