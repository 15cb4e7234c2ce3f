import type { Kysely } from 'kysely';
import { DEVICE_CLASSES } from '../../telemetry/report.ts';
import { titleOfClass } from '../../telemetry/device-class.ts';
import type { FleetAnswer } from '../api/answers.ts';
import type { Schema } from '../db/schema.ts';

/** A device that has said nothing for a day is not counted, milliseconds. */
const presentMs = 86_400_000;

/** Reads who runs what. */
export async function readInventory(
  db: Kysely<Schema>,
  now: number,
  kAnonymity: number,
): Promise<FleetAnswer> {
  const present = db.selectFrom('device').where('last_at', '>=', now - presentMs);
  const places = await present
    .select((eb) => [
      'model',
      'version',
      'rollout',
      'stage',
      'arm',
      eb.fn.countAll<number>().as('devices'),
      eb.fn.max('last_at').as('last_at'),
    ])
    .groupBy(['model', 'version', 'rollout', 'stage', 'arm'])
    .orderBy('model')
    .orderBy('version')
    .orderBy('rollout')
    .orderBy('stage')
    .orderBy('arm')
    .execute();
  const classes = await present
    .select((eb) => ['cls', eb.fn.count<number>('dev').distinct().as('devices')])
    .groupBy('cls')
    .execute();
  const all = await present
    .select((eb) => eb.fn.count<number>('dev').distinct().as('devices'))
    .executeTakeFirstOrThrow();
  const shown = (devices: number): number | null => (devices < kAnonymity ? null : devices);
  return {
    at: now,
    devices: shown(all.devices),
    kAnonymity,
    rows: places.map(({ devices, last_at, ...place }) => ({
      ...place,
      devices: shown(devices),
      lastAt: last_at,
    })),
    classes: Array.from({ length: DEVICE_CLASSES }, (_, cls) => ({
      cls,
      title: titleOfClass(cls),
      devices: shown(classes.find((row) => row.cls === cls)?.devices ?? 0),
    })),
    models: [...new Set(places.map(({ model }) => model))],
  };
}
