/** Identifiers of series. New ones are made for what the catalog knows only: names come from devices. */

import type { Kysely } from 'kysely';
import type { Schema, SeriesTable } from '../db/schema.ts';

/** What a series is told from others by. */
export type SeriesKey = Omit<SeriesTable, 'id'>;

/** Tells whether there is such a model, version and place in a rollout. */
export type IsKnown = (key: SeriesKey) => boolean | Promise<boolean>;

/** A series that counts go to. */
export interface Series extends SeriesKey {
  readonly id: number;
}

/** Finds series by what they are told by. */
export interface SeriesIndex {
  /**
   * Finds or makes the series of each key. What is unknown in its rollout counts outside of it.
   * @returns by {@link keyOf}; `undefined` for a model or version that is unknown.
   */
  resolve(keys: readonly SeriesKey[]): Promise<ReadonlyMap<string, Series | undefined>>;
}

/** A key as text. */
export function keyOf({ app, model, version, rollout, stage, arm, cls }: SeriesKey): string {
  return JSON.stringify([app, model, version, rollout, stage, arm, cls]);
}

/** An unknown key is asked about again after this time, milliseconds; so many are remembered. */
const unknownForMs = 30_000;
const mostUnknown = 10_000;
/** Series are few by nature: models × versions × arms × classes. */
const mostSeries = 100_000;

/** Creates the index over the table `series`, which it keeps in memory. */
export function createSeriesIndex(db: Kysely<Schema>, isKnown: IsKnown, now: () => number): SeriesIndex {
  let loaded: Promise<Map<string, Series>> | undefined;
  const unknown = new Map<string, number>();

  const load = async (): Promise<Map<string, Series>> => {
    const rows = await db.selectFrom('series').selectAll().execute();
    return new Map(rows.map((row) => [keyOf(row), row]));
  };
  const known = (): Promise<Map<string, Series>> =>
    (loaded ??= load().catch((error: unknown) => {
      loaded = undefined;
      throw error;
    }));

  const isRefused = (text: string): boolean => {
    const at = unknown.get(text);
    return at !== undefined && now() - at < unknownForMs;
  };
  const refuse = (text: string): void => {
    if (unknown.size >= mostUnknown) unknown.clear();
    unknown.set(text, now());
  };

  /** The key itself, or outside of its rollout; `undefined` for what is unknown. */
  const accepted = async (key: SeriesKey): Promise<SeriesKey | undefined> => {
    if (await isKnown(key)) return key;
    const outside = { ...key, rollout: '', stage: 0, arm: '' };
    return key.rollout !== '' && (await isKnown(outside)) ? outside : undefined;
  };

  const add = async (index: Map<string, Series>, keys: readonly SeriesKey[]): Promise<void> => {
    if (keys.length === 0) return;
    await db
      .insertInto('series')
      .values([...keys])
      .onConflict((conflict) => conflict.doNothing())
      .execute();
    const rows = await db
      .selectFrom('series')
      .selectAll()
      .where('model', 'in', [...new Set(keys.map(({ model }) => model))])
      .where('version', 'in', [...new Set(keys.map(({ version }) => version))])
      .execute();
    for (const row of rows) index.set(keyOf(row), row);
  };

  return {
    resolve: async (keys) => {
      const index = await known();
      /** Text of what was asked for → text of what it counts under. */
      const under = new Map<string, string | undefined>();
      const missing = new Map<string, SeriesKey>();
      for (const key of keys) {
        const text = keyOf(key);
        if (under.has(text)) continue;
        if (index.has(text)) under.set(text, text);
        else if (isRefused(text)) under.set(text, undefined);
        else {
          const into = await accepted(key);
          if (into === undefined) refuse(text);
          under.set(text, into && keyOf(into));
          if (into && index.size + missing.size < mostSeries) missing.set(keyOf(into), into);
        }
      }
      await add(
        index,
        [...missing].filter(([text]) => !index.has(text)).map(([, key]) => key),
      );
      return new Map(
        [...under].map(([text, into]) => [text, into === undefined ? undefined : index.get(into)]),
      );
    },
  };
}
