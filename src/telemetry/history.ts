/**
 * What each version did on this device lately, and what of it was frozen when a rollout began here: a candidate is judged
 * by what ran before it on the same device.
 */

import { fromUtf8, toUtf8 } from '../core/bytes.ts';
import type { Store } from '../core/store.ts';
import { isFields } from '../trust/parse.ts';
import type { ReportWindow } from './report.ts';
import { baselineOf, mergeWindows } from './window-join.ts';

/** What a device did before a stage, as reports carry it. */
export type Baseline = NonNullable<ReportWindow['bl']>;

/** As what the latest candidate counts: that it crashed the app is found out by the next run. */
export interface Standing {
  readonly version: string;
  readonly rollout?: string;
  readonly stage?: number;
  readonly arm?: string;
}

interface ModelHistory {
  /** By version, the one that was called last at the end: its last calls, in one or two windows. */
  readonly versions: readonly (readonly [version: string, calls: readonly ReportWindow[]])[];
  /** What was frozen for a rollout; `null` where too little was known. */
  readonly frozen?: { readonly rollout: string; readonly baseline: Baseline | null };
  readonly candidate?: Standing;
}

/** What is known of all models of a device. */
export interface History {
  /** Reads what was known before. A record that is gone or damaged counts as empty. */
  read(): Promise<void>;
  note(windows: readonly ReportWindow[]): void;
  /**
   * The baseline of a rollout. The first call for one freezes it.
   * @param version - what ran before the candidate, or runs as control; `undefined` where nobody knows.
   * @returns `undefined` where too little was known then.
   */
  baseline(model: string, rollout: string, version: string | undefined): Baseline | undefined;
  isFrozen(model: string, rollout: string): boolean;
  candidate(model: string): Standing | undefined;
  setCandidate(model: string, standing: Standing): void;
  /** Writes what has changed. A store that cannot be written is no failure. */
  save(): Promise<void>;
  /** Forgets everything. */
  wipe(): Promise<void>;
}

/** Name of the record in a store. */
const HISTORY_RECORD = 'telemetry-history';

/** Calls of one window: a baseline is made of one or two of them. */
const GENERATION = 500;
/** Versions and models that are remembered. */
const MOST_VERSIONS = 3;
const MOST_MODELS = 64;

/** Opens the history of a store. */
export function openHistory(store: Pick<Store, 'readRecord' | 'updateRecord'>): History {
  let models = new Map<string, ModelHistory>();
  let isChanged = false;

  const of = (model: string): ModelHistory => models.get(model) ?? { versions: [] };
  const set = (model: string, history: ModelHistory): void => {
    models.delete(model);
    models.set(model, history);
    const [oldest] = models.keys();
    if (models.size > MOST_MODELS && oldest !== undefined) models.delete(oldest);
    isChanged = true;
  };

  return {
    read: async () => {
      models = decode(await store.readRecord(HISTORY_RECORD).catch(() => undefined));
    },
    note: (windows) => {
      for (const { t, d, m, ver, n, ok, h, g } of windows) {
        if (n === 0) continue;
        const history = of(m);
        const calls: ReportWindow = {
          ...{ t, d, m, ver, n, ok },
          ...(h && { h: { ...(h.lat && { lat: h.lat }), ...(h.load && { load: h.load }) } }),
          ...(g?.mem && { g: { mem: g.mem } }),
        };
        const known = history.versions.find(([name]) => name === ver)?.[1] ?? [];
        const last = known.at(-1);
        const grown =
          last === undefined || last.n >= GENERATION
            ? [...known, calls].slice(-2)
            : [...known.slice(0, -1), mergeWindows(last, calls)];
        const others = history.versions.filter(([name]) => name !== ver);
        set(m, { ...history, versions: [...others, [ver, grown] as const].slice(-MOST_VERSIONS) });
      }
    },
    baseline: (model, rollout, version) => {
      const history = of(model);
      if (history.frozen?.rollout === rollout) return history.frozen.baseline ?? undefined;
      const [, calls = []] = history.versions.find(([name]) => name === version) ?? [];
      const baseline = baselineOf(calls);
      set(model, { ...history, frozen: { rollout, baseline: baseline ?? null } });
      return baseline;
    },
    isFrozen: (model, rollout) => of(model).frozen?.rollout === rollout,
    candidate: (model) => of(model).candidate,
    setCandidate: (model, candidate) => {
      set(model, { ...of(model), candidate });
    },
    save: async () => {
      if (!isChanged) return;
      isChanged = false;
      try {
        await store.updateRecord(HISTORY_RECORD, () =>
          toUtf8(JSON.stringify({ v: 1, models: Object.fromEntries(models) })),
        );
      } catch {
        isChanged = true;
      }
    },
    wipe: async () => {
      models = new Map();
      isChanged = false;
      await store.updateRecord(HISTORY_RECORD, (bytes) =>
        bytes === undefined || bytes.length === 0 ? undefined : new Uint8Array(),
      );
    },
  };
}

function decode(bytes: Uint8Array = new Uint8Array()): Map<string, ModelHistory> {
  try {
    const value: unknown = JSON.parse(fromUtf8(bytes));
    const models = isFields(value) && value['v'] === 1 ? value['models'] : undefined;
    if (!isFields(models)) return new Map();
    const isHistory = (entry: [string, unknown]): entry is [string, ModelHistory] =>
      isFields(entry[1]) && Array.isArray(entry[1]['versions']);
    return new Map(Object.entries(models).filter(isHistory));
  } catch {
    return new Map();
  }
}
