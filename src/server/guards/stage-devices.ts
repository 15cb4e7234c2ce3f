/** What the guards read of a stage's devices, and the verdicts that they write beside them. */

import type { Kysely, Transaction } from 'kysely';
import { CONTROL_ARM } from '../../update/arms.ts';
import type { Schema } from '../db/schema.ts';
import { SLOW_DEVICE_MS } from './defaults.ts';
import type { Sides } from './look.ts';
import type { Device } from './verdicts.ts';

/** A stage of a rollout. */
export interface StageKey {
  readonly rollout: string;
  readonly stage: number;
}

/**
 * How far a device is judged, in `judged_at`: not at all, whether it went silent, everything but that; above zero, the time
 * at which the last of both was done.
 */
export const UNJUDGED = 0;
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
  ...(['base_n', 'base_errors', 'base_p95', 'base_mem', 'mem', 'hist', 'outputs', 'biz'] as const),
  ...(['first_at', 'activated_at', 'last_at', 'gap', 'judged_at', 'verdicts'] as const),
] as const;

/** Devices named in one statement. */
const chunk = 500;
/** Devices whose reports are looked through for lost ones. */
const lossSample = 2000;

/**
 * Lists devices that are due, in the order of their names: with enough calls, given up, slow, or with the time over in which
 * they were to be heard of again.
 * @param after name of the device before the first one.
 */
export function listDue(
  db: Kysely<Schema>,
  { rollout, stage }: StageKey,
  due: { readonly now: number; readonly calls: number; readonly periodMs: number },
  after: string,
  limit: number,
): Promise<readonly PendingDevice[]> {
  const { now, calls, periodMs } = due;
  return db
    .selectFrom('stage_device')
    .select([...columns])
    .where('rollout', '=', rollout)
    .where('stage', '=', stage)
    .where('judged_at', '<=', 0)
    .where('dev', '>', after)
    .where((eb) =>
      eb.or([
        eb.and([
          eb('judged_at', '!=', RIPE),
          eb.or([eb('n', '>=', calls), eb('rejections', '>', 0), eb('first_at', '<=', now - SLOW_DEVICE_MS)]),
        ]),
        eb.and([
          eb('judged_at', '!=', HEARD),
          eb('first_at', '<=', now - 2 * periodMs),
          eb('activated_at', '<=', now - 2 * periodMs),
        ]),
      ]),
    )
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

/** Counts the devices of a stage by side: all, and those of a kind. */
export async function countDevices(
  db: Kysely<Schema>,
  { rollout, stage }: StageKey,
  kind?: 'fatals' | 'rejections',
): Promise<Sides> {
  let query = db
    .selectFrom('stage_device')
    .select((eb) => ['arm', eb.fn.countAll().as('devices')])
    .where('rollout', '=', rollout)
    .where('stage', '=', stage)
    .groupBy('arm');
  if (kind) query = query.where(kind, '>', 0);
  return bySide(await query.execute(), ({ devices }) => Number(devices));
}

/** Tells whether any device has made a call with the candidate or an arm. */
export async function hasCalls(db: Kysely<Schema>, { rollout, stage }: StageKey): Promise<boolean> {
  const row = await db
    .selectFrom('stage_device')
    .select('dev')
    .where('rollout', '=', rollout)
    .where('stage', '=', stage)
    .where('arm', '!=', CONTROL_ARM)
    .where('n', '>', 0)
    .limit(1)
    .executeTakeFirst();
  return row !== undefined;
}

/** Gives the shares of reports that got lost, by a sample of the devices. */
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
    .select((eb) => ['sample.arm', eb.fn.sum('dedupe.lost').as('lost'), eb.fn.sum('dedupe.hi').as('sent')])
    .groupBy('sample.arm')
    .execute();
  const lost = bySide(rows, (row) => Number(row.lost));
  const sent = bySide(rows, (row) => Number(row.sent));
  return {
    treated: lost.treated / Math.max(1, sent.treated),
    control: lost.control / Math.max(1, sent.control),
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
