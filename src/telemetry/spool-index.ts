/**
 * Which records of the store belong to which run of the app. A reporter takes what runs that have died left behind, together
 * with their counts, so that runs never share a record and none is forgotten.
 */

import { fromUtf8, toUtf8 } from '../core/bytes.ts';
import type { Platform } from '../core/platform.ts';
import type { Store } from '../core/store.ts';
import { isFields } from '../trust/parse.ts';

/** What is known of telemetry in a store. */
export interface SpoolIndex {
  /** Random name of this installation for telemetry; absent without consent. */
  readonly dev?: string;
  /** Run that owns each record; `null` for none. */
  readonly owners: readonly (string | null)[];
  /** Names whose data the server is still to be asked to forget. */
  readonly forget: readonly string[];
}

/** Name of the index in a store. */
export const INDEX_RECORD = 'telemetry';

/** Owner of records that were closed before the server had all of them. */
export const CLOSED = '';

const nothing: SpoolIndex = { owners: [], forget: [] };

/** Names the record at a place of the index. */
export function spoolRecordName(place: number): string {
  return `telemetry-${place}`;
}

/** Reads an index; a damaged one counts as empty. */
export function decodeIndex(bytes: Uint8Array | undefined): SpoolIndex {
  if (bytes === undefined || bytes.length === 0) return nothing;
  try {
    const value: unknown = JSON.parse(fromUtf8(bytes));
    if (!isFields(value) || value['v'] !== 1) return nothing;
    const { dev, owners, forget } = value;
    const isText = (one: unknown): one is string => typeof one === 'string';
    if (!Array.isArray(owners) || !Array.isArray(forget) || !forget.every(isText)) return nothing;
    if (!owners.every((one) => one === null || isText(one))) return nothing;
    return { ...(isText(dev) && { dev }), owners, forget };
  } catch {
    return nothing;
  }
}

/** Writes an index down. */
function encodeIndex(index: SpoolIndex): Uint8Array<ArrayBuffer> {
  return toUtf8(JSON.stringify({ v: 1, ...index }));
}

/** Changes the index as one step among all runs. @returns what it is afterwards. */
export async function changeIndex(
  store: Pick<Store, 'updateRecord'>,
  change: (index: SpoolIndex) => SpoolIndex,
): Promise<SpoolIndex> {
  let changed = nothing;
  await store.updateRecord(INDEX_RECORD, (bytes) => {
    changed = change(decodeIndex(bytes));
    return encodeIndex(changed);
  });
  return changed;
}

/** Places in the index that a run may take, best first: those of runs that have died, then free ones, then a new one. */
export interface Claim {
  readonly dev: string;
  readonly own: number;
  /** Further places that dead runs left. */
  readonly left: readonly number[];
}

/**
 * Takes a place for a run, and those of all runs that have died.
 * @param draw - makes a name for this installation, where it has none.
 */
export async function claimPlaces(
  store: Pick<Store, 'readRecord' | 'updateRecord'>,
  { instance }: Pick<Platform, 'instance'>,
  run: string,
  draw: () => string,
): Promise<Claim> {
  const { owners: known } = decodeIndex(await store.readRecord(INDEX_RECORD));
  const dead = new Set<string>();
  for (const owner of new Set(known)) {
    if (owner === null || owner === run) continue;
    // Where it cannot be found out, a neighbour gets the benefit of the doubt.
    const isAlive =
      owner !== CLOSED && instance && (await instance.isAlive(processOf(owner)).catch(() => true));
    if (isAlive !== true) dead.add(owner);
  }
  let places: readonly number[] = [];
  const { dev = '' } = await changeIndex(store, (index) => {
    const { owners } = index;
    const left = owners.flatMap((owner, place) =>
      owner !== null && (dead.has(owner) || owner === run) ? [place] : [],
    );
    const free = owners.indexOf(null);
    const own = left[0] ?? (free < 0 ? owners.length : free);
    places = [own, ...left.slice(1)];
    const next = [...owners];
    for (const place of places) next[place] = run;
    return { ...index, dev: index.dev ?? draw(), owners: next };
  });
  const [own = 0, ...left] = places;
  return { dev, own, left };
}

/** Names a reporter: several of them may live in one run of the app. */
export function nameReporter(instance: Platform['instance'], random: string): string {
  return `${instance?.id ?? ''}/${random}`;
}

function processOf(reporter: string): string {
  return reporter.slice(0, reporter.lastIndexOf('/'));
}
