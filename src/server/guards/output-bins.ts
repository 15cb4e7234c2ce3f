/** Which counts of outputs can be compared: those in equal bins, whatever profile they are part of. */

import { createHash } from 'node:crypto';
import type { Kysely } from 'kysely';
import { toUtf8 } from '../../core/bytes.ts';
import { isInlayError } from '../../core/errors.ts';
import { readProfile } from '../../telemetry/profile-reader.ts';
import type { Feature } from '../../telemetry/profile.ts';
import { CONTROL_ARM } from '../../update/arms.ts';
import type { Schema } from '../db/schema.ts';

type Counts = Readonly<Record<string, readonly number[]>>;

/** Short names of the bins of outputs, by the hash of a profile. */
export type BinNames = ReadonlyMap<string, Readonly<Record<string, string>>>;

/** Outputs with their bins that the devices of each arm have counted. */
export interface SeenBins {
  readonly treated: readonly string[];
  readonly control: readonly string[];
}

/** Most outputs of an arm that are kept in mind. */
const mostSeen = 256;

/** Names the bins of a feature by its edges or categories, in their order, and how it is read; not by its counts. */
function nameBins(feature: Feature): string {
  const bins = feature.type === 'number' ? feature.edges : feature.values;
  const text = JSON.stringify([feature.type, feature.reading, bins]);
  return createHash('sha256').update(text).digest('hex').slice(0, 16);
}

/** Lists the profiles that a device has counted by. */
export function profilesOf(outputs: string): readonly string[] {
  return Object.keys(byProfile(outputs));
}

/** Reads the bins of profiles, as far as these are known. */
export async function readBins(db: Kysely<Schema>, hashes: ReadonlySet<string>): Promise<BinNames> {
  if (hashes.size === 0) return new Map();
  // What devices make up is no profile that they can have.
  const wanted = [...hashes].sort().slice(0, 100);
  const rows = await db.selectFrom('profile').select(['hash', 'body']).where('hash', 'in', wanted).execute();
  return new Map(
    rows.map(({ hash, body }) => {
      const names = outputsIn(body).map(([name, feature]) => [name, nameBins(feature)] as const);
      return [hash, Object.fromEntries(names)] as const;
    }),
  );
}

/** Adds up the counts of a device that are in equal bins. Those of an unknown profile compare with its own only. */
export function inBins(outputs: string, bins: BinNames): string {
  const all: Record<string, readonly number[]> = {};
  for (const [profile, counts] of Object.entries(byProfile(outputs))) {
    const names = bins.get(profile);
    for (const [name, values] of Object.entries(counts)) {
      const bin = names && (Object.hasOwn(names, name) ? names[name] : undefined);
      if (names !== undefined && bin === undefined) continue;
      const key = `${name}~${bin ?? profile}`;
      const present = all[key];
      if (present && present.length !== values.length) continue;
      all[key] = values.map((value, i) => value + (present?.[i] ?? 0));
    }
  }
  return Object.keys(all).length === 0 ? '' : JSON.stringify(all);
}

/** Takes note of what devices have counted. */
export function withSeen(
  seen: SeenBins | undefined,
  devices: readonly { readonly arm: string; readonly outputs: string }[],
): SeenBins {
  const treated = new Set(seen?.treated);
  const control = new Set(seen?.control);
  for (const { arm, outputs } of devices) {
    const side = arm === CONTROL_ARM ? control : treated;
    if (outputs === '' || side.size >= mostSeen) continue;
    for (const name of Object.keys(JSON.parse(outputs) as Counts)) side.add(name);
  }
  return { treated: [...treated].sort(), control: [...control].sort() };
}

/** Tells whether both arms have counted outputs, and none in the same bins. */
export function areApart(seen: SeenBins | undefined): boolean {
  if (seen === undefined || seen.treated.length === 0 || seen.control.length === 0) return false;
  return !seen.treated.some((name) => seen.control.includes(name));
}

function byProfile(outputs: string): Readonly<Record<string, Counts>> {
  return outputs === '' ? {} : (JSON.parse(outputs) as Record<string, Counts>);
}

/** Nothing where a profile cannot be read: whoever keeps profiles tells of that. */
function outputsIn(body: string): readonly (readonly [string, Feature])[] {
  try {
    return Object.entries(readProfile(toUtf8(body)).outputs);
  } catch (error) {
    if (!isInlayError(error)) throw error;
    return [];
  }
}
