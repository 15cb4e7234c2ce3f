/** Whether what models see and give differs from their references, and what labels say, from counts that devices sent. */

import type { Kysely } from 'kysely';
import type { Platform } from '../../core/platform.ts';
import { populationStability, shares } from '../../stats/distances.ts';
import {
  accuracyEvidence,
  compare,
  FEWEST_DEVICES,
  FEWEST_VALUES,
  judge,
  type Drift as Comparison,
  type DriftVerdict,
  type Sample,
} from '../../stats/drift.ts';
import type { Feature } from '../../telemetry/profile.ts';
import type { DriftAnswer, DriftRow } from '../api/answers.ts';
import type { Schema } from '../db/schema.ts';
import { devicesOf, readCounts, readPart, type CountRow } from '../counts.ts';
import { createProfiles, type ProfileParts, type ReleaseProfile } from './profiles.ts';
import { sumFeature, type FeatureCounts, type FeatureName } from './vectors.ts';

const dayS = 86_400;
/** The rolling reference: so many days before the window. */
const rollingDays = 7;

/** Rows for metrics and alerts, which ask often, may be so old; milliseconds, and how many answers are kept. */
const RECENT_MS = 60_000;
const MOST_RECENT = 16;

/** What drift is asked for. */
export interface DriftQuery {
  readonly model?: string | undefined;
  readonly version?: string | undefined;
  readonly channel?: string | undefined;
  /** Seconds up to now. Default a day. */
  readonly windowS?: number | undefined;
  /** Days of history, labels included. Default 14. */
  readonly days?: number | undefined;
}

/** What is known of drift. */
export interface Drift {
  /**
   * Compares each feature of each version that has a profile with its training data, and with the 7 days before the window.
   * Where fewer devices than `kAnonymity` counted, figures and counts are hidden: `null`, 0, or an empty list.
   */
  answer(query?: DriftQuery): Promise<DriftAnswer>;
  /** Rows alone, of one reference and without a history, up to a minute old: what alerts and metrics look at. */
  rows(query: DriftQuery, against: DriftRow['against']): Promise<readonly DriftRow[]>;
  /** Profiles of all releases that have one. */
  profiles(): Promise<readonly ReleaseProfile[]>;
}

/** What {@link createDrift} needs. */
export interface DriftParts extends ProfileParts {
  readonly db: Kysely<Schema>;
  readonly platform: Pick<Platform, 'now'>;
  /** Fewest devices of a figure that is shown. Default 20. */
  readonly kAnonymity?: number;
}

/** Creates the service. */
export function createDrift(parts: DriftParts): Drift {
  const { db, platform, kAnonymity = 20 } = parts;
  const profiles = createProfiles(parts);
  const recent = new Map<string, { readonly at: number; readonly rows: Promise<readonly DriftRow[]> }>();

  const wanted = async ({ model, version }: DriftQuery): Promise<readonly ReleaseProfile[]> =>
    (await profiles())
      .filter(
        (of) =>
          (model === undefined || of.model === model) && (version === undefined || of.version === version),
      )
      .sort((a, b) => (a.model + a.version < b.model + b.version ? -1 : 1));

  const read = (of: ReleaseProfile, { channel }: DriftQuery, fromS: number, toS: number) =>
    readCounts(db, { app: channel, model: of.model, version: of.version }, fromS, toS);

  const rowsOf = async (
    of: ReleaseProfile,
    query: DriftQuery,
    against: DriftRow['against'],
    days: readonly (readonly CountRow[])[],
  ): Promise<readonly DriftRow[]> => {
    const endS = slotAfter(platform.now());
    const beginS = endS - (query.windowS ?? dayS);
    const now = await read(of, query, beginS, endS);
    // Versions that nobody runs any more have rows no longer.
    if (now.length === 0) return [];
    const before = against === 'rolling' ? await read(of, query, beginS - rollingDays * dayS, beginS) : [];
    const measured = featuresOf(of).map((it): Measured => {
      const current = sumFeature(now, it.feature, it.name);
      const past = against === 'rolling' ? sumFeature(before, it.feature, it.name) : undefined;
      const reference: Sample = past ?? { counts: it.feature.counts };
      return { ...it, current, reference, result: compare(reference, current, binsOf(it.feature)) };
    });
    const verdicts = judge(measured.map(({ result }) => result));
    return measured.map((it, i) => {
      const isHidden = it.current.devices < kAnonymity || (it.reference.devices ?? kAnonymity) < kAnonymity;
      const history = days.map((day) => {
        const { counts, n, devices } = sumFeature(day, it.feature, it.name);
        const isEnough = n >= FEWEST_VALUES && devices >= Math.max(FEWEST_DEVICES, kAnonymity);
        return isEnough && !isHidden ? populationStability(it.reference.counts, counts) : null;
      });
      return rowOf(of, against, it, verdicts[i] ?? 'too-few', isHidden, history);
    });
  };

  const history = async (
    of: ReleaseProfile,
    { channel, days = 14 }: DriftQuery,
  ): Promise<readonly (readonly CountRow[])[]> => {
    const to = Math.ceil(slotAfter(platform.now()) / dayS) * dayS;
    const filter = { app: channel, model: of.model, version: of.version };
    const rows = await readPart(db, filter, { res: dayS, from: to - days * dayS, to });
    return Array.from({ length: days }, (_, i) => rows.filter(({ t }) => t === to - (days - i) * dayS));
  };

  const conceptOf = async (query: DriftQuery): Promise<DriftAnswer['concept']> => {
    const endS = slotAfter(platform.now());
    const filter = { app: query.channel, model: query.model, version: query.version };
    const rows = await readCounts(db, filter, endS - (query.days ?? 14) * dayS, endS);
    const byVersion = new Map<string, CountRow[]>();
    for (const row of rows) {
      const key = `${row.model}\n${row.version}`;
      byVersion.set(key, [...(byVersion.get(key) ?? []), row]);
    }
    const known = await wanted(query);
    return [...byVersion.values()].flatMap((of) => {
      const [{ model, version }] = of as [CountRow, ...CountRow[]];
      const accuracy = known.find((it) => it.model === model && it.version === version)?.profile.accuracy;
      const labels = labelsOf(of);
      if (labels.n === 0) return [];
      // Fewer labels than that come from fewer devices.
      const isHidden = Math.min(devicesOf(of), labels.n) < kAnonymity;
      return [{ model, version, ...conceptRow(labels, accuracy ?? null, isHidden) }];
    });
  };

  return {
    profiles,
    rows: (query, against) => {
      const now = platform.now();
      const key = JSON.stringify([query, against]);
      const known = recent.get(key);
      if (known && now >= known.at && now - known.at < RECENT_MS) return known.rows;
      const rows = wanted(query).then(async (list) => {
        const all = await Promise.all(list.map((of) => rowsOf(of, query, against, [])));
        return all.flat();
      });
      recent.set(key, { at: now, rows });
      rows.catch(() => recent.delete(key));
      const [oldest] = recent.keys();
      if (recent.size > MOST_RECENT && oldest !== undefined) recent.delete(oldest);
      return rows;
    },
    answer: async (query = {}) => {
      const rows: DriftRow[] = [];
      for (const of of await wanted(query)) {
        const days = await history(of, query);
        rows.push(
          ...(await rowsOf(of, query, 'training', days)),
          ...(await rowsOf(of, query, 'rolling', days)),
        );
      }
      return { rows, concept: await conceptOf(query) };
    },
  };
}

interface NamedFeature {
  readonly name: FeatureName;
  readonly feature: Feature;
}

interface Measured extends NamedFeature {
  readonly current: FeatureCounts;
  readonly reference: Sample;
  readonly result: Comparison | undefined;
}

function featuresOf({ profile, hash }: ReleaseProfile): readonly NamedFeature[] {
  const list = (
    kind: FeatureName['kind'],
    features: Readonly<Record<string, Feature>>,
  ): readonly NamedFeature[] =>
    Object.entries(features).map(([name, feature]) => ({ name: { kind, name, hash }, feature }));
  return [...list('output', profile.outputs), ...list('input', profile.inputs)];
}

function binsOf(feature: Feature): Parameters<typeof compare>[2] {
  return feature.type === 'number' ? { edges: feature.edges, deviation: feature.std } : {};
}

function labelsOfBins(feature: Feature): readonly string[] {
  if (feature.type === 'category') return [...feature.values, 'null', 'other'];
  const { edges } = feature;
  const names = edges.slice(1).map((edge, i) => `${short(edges[i] ?? 0)} … ${short(edge)}`);
  return [...names, 'null', 'out of range'];
}

function short(value: number): string {
  return String(Number(value.toPrecision(3)));
}

function rowOf(
  { model, version }: ReleaseProfile,
  against: DriftRow['against'],
  { name, feature, current, reference, result }: Measured,
  verdict: DriftVerdict,
  isHidden: boolean,
  history: DriftRow['history'],
): DriftRow {
  const shown = isHidden ? undefined : result;
  return {
    model,
    version,
    feature: name.name,
    kind: name.kind,
    against,
    n: isHidden ? 0 : Math.round(current.n),
    devices: isHidden ? 0 : current.devices,
    psi: shown?.psi ?? null,
    psiAt: shown?.psiAt ?? null,
    chi2P: shown?.chi2P ?? null,
    ks: shown?.ks ?? null,
    ksP: shown?.ksP ?? null,
    js: shown?.js ?? null,
    w1: shown?.w1 ?? null,
    verdict: isHidden ? 'too-few' : verdict,
    bins: labelsOfBins(feature),
    reference: shares(reference.counts),
    current: isHidden ? [] : shares(current.counts),
    history,
  };
}

/** Sums of labels. */
interface Labels {
  readonly n: number;
  readonly ok: number;
  readonly calls: number;
  readonly calibration: readonly (readonly [number, number, number])[];
}

function labelsOf(rows: readonly CountRow[]): Labels {
  let n = 0;
  let ok = 0;
  let calls = 0;
  const calibration: [number, number, number][] = [];
  for (const { counts } of rows) {
    calls += counts.ok;
    n += counts.fb?.n ?? 0;
    ok += counts.fb?.ok ?? 0;
    counts.fb?.cal?.forEach(([count, right, confidence], i) => {
      const [a, b, c] = calibration[i] ?? [0, 0, 0];
      calibration[i] = [a + count, b + right, c + confidence];
    });
  }
  return { n, ok, calls, calibration };
}

function conceptRow(
  { n, ok, calls, calibration }: Labels,
  reference: number | null,
  isHidden: boolean,
): Omit<DriftAnswer['concept'][number], 'model' | 'version'> {
  if (isHidden) {
    return { labelled: 0, coverage: null, accuracy: null, reference, logE: null, calibration: [] };
  }
  const logE =
    reference !== null && reference > 0 && reference < 1 ? accuracyEvidence(ok, n - ok, reference) : null;
  return {
    labelled: n,
    coverage: calls > 0 ? Math.min(1, n / calls) : null,
    accuracy: ok / n,
    reference,
    logE,
    calibration,
  };
}

/** End of the 5 minutes that a time is in, seconds. */
function slotAfter(nowMs: number): number {
  return (Math.floor(nowMs / 300_000) + 1) * 300;
}
