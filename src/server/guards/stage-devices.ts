/** What the guards read of a stage's devices, and the verdicts that they write beside them. */

import type { Kysely, Transaction } from 'kysely';
import { CONTROL_ARM } from '../../update/arms.ts';
import type { Schema } from '../db/schema.ts';
import { SLOW_DEVICE_MS } from './defaults.ts';
import { waitsFrom } from './hearing.ts';
import type { Sides } from './look.ts';
import { SOUND_RATE, type Device } from './verdicts.ts';

/** A stage of a rollout. */
export interface StageKey {
  readonly rollout: string;
  readonly stage: number;
}

/** `judged_at` of devices of which nothing is judged, only whether they went silent, and all but that. */
const UNJUDGED = 0;
export const HEARD = -1;
export const RIPE = -2;

/** A device that something is to be judged of. */
export type PendingDevice = Device & { readonly judged_at: number };

/** A device with its new verdicts. */
export interface JudgedDevice {
  readonly dev: string;
  readonly verdicts: string;
  readonly judgedAt: number;
}

const columns = [
  ...(['dev', 'arm', 'cls', 'n', 'errors', 'fatals', 'rejections'] as const),
  ...(['base_n', 'base_errors', 'base_p95', 'base_load', 'base_mem'] as const),
  ...(['mem', 'hist', 'load', 'outputs', 'biz'] as const),
  ...(['first_at', 'activated_at', 'last_at', 'gap', 'judged_at', 'verdicts'] as const),
] as const;

/** Devices named in one statement. */
const chunk = 250;
/** Devices whose reports are looked through for lost ones, and reports of an arm that a share is worth to speak of. */
const lossSample = 2000;
const enoughReports = 100;
/** Devices that are counted one by one. */
const mostHit = 50_000;

/** What makes devices due. */
export interface Due {
  readonly now: number;
  readonly calls: number;
  /** Between two reports, milliseconds. */
  readonly periodMs: number;
  /** Until when no device could be heard of, milliseconds since 1970. */
  readonly quietUntil: number;
}

/** How far devices are judged that more may be judged of. */
export const PHASES: readonly number[] = [UNJUDGED, HEARD, RIPE];

/**
 * Lists devices that may be due, in the order of their names: with enough calls, given up, slow, or with the time over in
 * which they were to be heard of again.
 * @param phase - one of {@link PHASES}: each is a range of an index.
 * @param after - name of the device before the first one.
 */
export function listDue(
  db: Kysely<Schema>,
  { rollout, stage }: StageKey,
  { now, calls, periodMs, quietUntil }: Due,
  phase: number,
  after: string,
  limit: number,
): Promise<readonly PendingDevice[]> {
  const since = now - 2 * periodMs;
  return db
    .selectFrom('stage_device')
    .select([...columns])
    .where('rollout', '=', rollout)
    .where('stage', '=', stage)
    .where('judged_at', '=', phase)
    .where('dev', '>', after)
    .where((eb) => {
      const isRipe = [
        eb('n', '>=', calls),
        eb('rejections', '>', 0),
        eb('first_at', '<=', now - SLOW_DEVICE_MS),
      ];
      const isQuiet = eb.and([
        ...[eb('first_at', '<=', since), eb('activated_at', '<=', since)],
        ...(waitsFrom(0, quietUntil) <= since
          ? []
          : [eb.or([eb('first_at', '>=', quietUntil), eb('activated_at', '>=', quietUntil)])]),
      ]);
      return eb.or([...(phase === RIPE ? [] : isRipe), ...(phase === HEARD ? [] : [isQuiet])]);
    })
    .orderBy('dev')
    .limit(limit)
    .execute();
}

/** Writes verdicts. */
export async function writeVerdicts(
  tx: Transaction<Schema>,
  { rollout, stage }: StageKey,
  devices: readonly JudgedDevice[],
): Promise<void> {
  const alike = new Map<string, JudgedDevice[]>();
  for (const device of devices) {
    const key = `${device.judgedAt} ${device.verdicts}`;
    const group = alike.get(key);
    if (group) group.push(device);
    else alike.set(key, [device]);
  }
  for (const group of alike.values()) {
    const [{ verdicts, judgedAt } = { verdicts: '', judgedAt: 0 }] = group;
    for (let i = 0; i < group.length; i += chunk) {
      await tx
        .updateTable('stage_device')
        .set({ verdicts, judged_at: judgedAt })
        .where('rollout', '=', rollout)
        .where('stage', '=', stage)
        .where(
          'dev',
          'in',
          group.slice(i, i + chunk).map(({ dev }) => dev),
        )
        .execute();
    }
  }
}

/** Counts the devices of a stage by side, and those whose people agreed to full reports. */
export async function countDevices(
  db: Kysely<Schema>,
  { rollout, stage }: StageKey,
): Promise<{ readonly devices: Sides; readonly full: Sides }> {
  const rows = await db
    .selectFrom('stage_device')
    .select((eb) => ['arm', 'consent', eb.fn.countAll().as('devices')])
    .where('rollout', '=', rollout)
    .where('stage', '=', stage)
    .groupBy(['arm', 'consent'])
    .execute();
  return {
    devices: bySide(rows, ({ devices }) => Number(devices)),
    full: bySide(rows, ({ consent, devices }) => consent * Number(devices)),
  };
}

/** Counts the devices that such a thing happened on. In small numbers, that is: beyond, every tripwire has gone off. */
export async function countHit(
  db: Kysely<Schema>,
  { rollout, stage }: StageKey,
  what: 'fatals' | 'rejections',
): Promise<Sides> {
  // Not grouped: SQLite would take the index of the groups, and read every device.
  const rows = await db
    .selectFrom('stage_device')
    .select('arm')
    .where('rollout', '=', rollout)
    .where('stage', '=', stage)
    .where(what, '>', 0)
    // Those that were bad before give any release up.
    .where((eb) =>
      eb.or([eb('base_n', '=', 0), eb(eb('base_errors', '*', 1 / SOUND_RATE), '<', eb.ref('base_n'))]),
    )
    .limit(mostHit)
    .execute();
  return bySide(rows, () => 1);
}

/** Tells whether any device has made a call with the candidate or an arm. */
export async function hasCalls(db: Kysely<Schema>, { rollout, stage }: StageKey): Promise<boolean> {
  const row = await db
    .selectFrom('stage_device')
    .select('dev')
    .where('rollout', '=', rollout)
    .where('stage', '=', stage)
    // Two ranges of the index, where "not equal" would be none.
    .where((eb) => eb.or([eb('arm', '<', CONTROL_ARM), eb('arm', '>', CONTROL_ARM)]))
    .where('n', '>', 0)
    .limit(1)
    .executeTakeFirst();
  return row !== undefined;
}

/**
 * Gives the shares of reports that got lost, by a sample of the devices: the means of theirs, so that one that makes
 * numbers up is worth no more than another.
 */
export async function readLoss(db: Kysely<Schema>, { rollout, stage }: StageKey): Promise<Sides> {
  const rows = await db
    .selectFrom((eb) =>
      eb
        .selectFrom('stage_device')
        .select(['dev', 'arm'])
        .where('rollout', '=', rollout)
        .where('stage', '=', stage)
        .orderBy('dev')
        .limit(lossSample)
        .as('sample'),
    )
    .innerJoin('dedupe', 'dedupe.dev', 'sample.dev')
    .select((eb) => [
      'sample.arm',
      eb.fn.sum('dedupe.lost').as('lost'),
      eb.fn.sum(eb('dedupe.hi', '+', 1)).as('sent'),
    ])
    .groupBy(['sample.dev', 'sample.arm'])
    .execute();
  const devices = bySide(rows, () => 1);
  const shares = bySide(rows, ({ lost, sent }) => Math.min(1, Number(lost) / Number(sent)));
  const sent = bySide(rows, (row) => Number(row.sent));
  return {
    treated: sent.treated < enoughReports ? 0 : shares.treated / devices.treated,
    control: sent.control < enoughReports ? 0 : shares.control / devices.control,
  };
}

/** Adds what arms have up: everything but the control is treated. */
function bySide<Row extends { readonly arm: string }>(rows: readonly Row[], of: (row: Row) => number): Sides {
  let treated = 0;
  let control = 0;
  for (const row of rows) {
    if (row.arm === CONTROL_ARM) control += of(row);
    else treated += of(row);
  }
  return { treated, control };
}
