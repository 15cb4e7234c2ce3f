/** A real server with a fleet that tests make up, and the dashboard that it serves. */

import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { Readable } from 'node:stream';
import type { Kysely } from 'kysely';
import { buildDashboard } from '../../scripts/dashboard.mjs';
import { nodePlatform } from '../../src/platform-node.ts';
import { addRelease, createRoot, createTargets, expiresIn } from '../../src/publish/release.ts';
import { signMetadata } from '../../src/publish/sign.ts';
import { writeAlerts, writeEvents } from '../../src/server/alerts/store.ts';
import { createAppOf } from '../../src/server/app.ts';
import { createCatalog } from '../../src/server/catalog.ts';
import { openDatabase } from '../../src/server/db/open.ts';
import { createRepository } from '../../src/server/db/repository.ts';
import type { Schema, StageDeviceTable } from '../../src/server/db/schema.ts';
import type { Aggregate } from '../../src/server/ingest/aggregate.ts';
import { inPieces } from '../../src/server/ingest/rows.ts';
import { listen } from '../../src/server/listen.ts';
import { createServices } from '../../src/server/services.ts';
import { openDiskStorage } from '../../src/server/storage/disk.ts';
import { createHistogram } from '../../src/telemetry/histogram.ts';
import type { HistogramCounts } from '../../src/telemetry/report.ts';
import { createSigner, sha256, tinyModel } from '../node/server-fixture.ts';

/** The server of the dashboard's tests. */
export interface DashboardWorld {
  /** Where the dashboard is. */
  readonly url: string;
  readonly db: Kysely<Schema>;
  /** Keys by role; `other` is a viewer of another model. */
  readonly keys: Readonly<Record<'admin' | 'publisher' | 'viewer' | 'other', string>>;
  readonly errors: readonly unknown[];
  close(): Promise<void>;
}

const releases = [
  ['digits', '1.1.0'],
  ['digits', '1.2.0'],
  ['speech', '1.4.0'],
  ['speech', '2.0.0'],
  ['faces', '3.0.0'],
  ['faces', '3.1.0'],
] as const;
const hourMs = 3_600_000;

/**
 * Starts a server. With a fleet, `digits` 1.2.0 was halted by its guards, `speech` 2.0.0 is on its way, and `faces` 3.1.0 is
 * raised by hand; without one nothing is published.
 */
export async function openDashboardWorld({ hasFleet = true } = {}): Promise<DashboardWorld> {
  const folder = await mkdtemp(join(tmpdir(), 'inlay-dashboard-'));
  // Guards look at the hours before, one look after the other.
  let behindMs = 2 * hourMs;
  const platform = { ...nodePlatform(), now: () => Date.now() - behindMs };
  const errors: unknown[] = [];
  const onError = (error: unknown): void => {
    errors.push(error);
  };
  for (const { path, content } of await buildDashboard()) {
    const target = join(folder, path);
    await mkdir(dirname(target), { recursive: true });
    await writeFile(target, content);
  }
  const { db } = await openDatabase(join(folder, 'inlay.db'));
  const repository = createRepository(db, () => platform.now());
  const blobs = await openDiskStorage({ directory: join(folder, 'blobs'), platform });
  const catalog = createCatalog({ repository, blobs, signer: await createSigner(platform), platform });
  const parts = { db, repository, blobs, platform, onError };
  const services = createServices({ ...parts, catalog, maxBlobBytes: 1e6 });
  const dashboardDir = join(folder, 'dashboard');
  const listening = await listen(createAppOf(catalog, services, { ...parts, dashboardDir }), {
    host: '127.0.0.1',
    port: 0,
    platform,
    onError,
  });
  const make = async (
    role: 'admin' | 'publisher' | 'viewer',
    models?: readonly string[],
  ): Promise<string> => {
    const scope = models === undefined ? {} : { models };
    return (await services.tokens.create({ name: role, role, scope }, 'test')).token;
  };
  const keys = {
    admin: await make('admin'),
    publisher: await make('publisher'),
    viewer: await make('viewer'),
    other: await make('viewer', ['faces']),
  };
  if (hasFleet) {
    await publishAll();
    await raiseRollouts();
    behindMs = 0;
    const ids = await rolloutIds();
    await writeCounts(db, ids, Date.now());
    await writeAlarms(db, Date.now());
  }
  return {
    url: `${listening.url}/dashboard/`,
    db,
    keys,
    errors,
    close: async () => {
      await listening.close();
      await services.close();
      await db.destroy();
      await rm(folder, { recursive: true, force: true, maxRetries: 5 });
    },
  };

  async function publishAll(): Promise<void> {
    const [rootSigner, signer] = [await createSigner(platform), await createSigner(platform)];
    const expires = expiresIn(platform.now(), 180);
    const { onlineKey } = catalog;
    const root = createRoot({ rootKeys: [rootSigner], targetsKeys: [signer], onlineKey, expires });
    await catalog.installRoot(await signMetadata(root, [rootSigner]), 'test');
    let targets = createTargets({ onlineKey, expires });
    for (const [model, version] of releases) {
      const bytes = tinyModel(`${model} ${version}`);
      const hash = sha256(bytes);
      await blobs.write(hash, Readable.from([bytes]), bytes.length);
      const release = { model, version, file: 'model.onnx', length: bytes.length, sha256: hash, expires };
      ({ targets } = addRelease(targets, release));
    }
    await catalog.installTargets(await signMetadata({ ...targets, version: 1 }, [signer]), 'test');
  }

  async function raiseRollouts(): Promise<void> {
    const by = 'publisher';
    for (const [model, version] of [releases[0], releases[2], releases[4]]) {
      await catalog.setRollout({ channel: 'stable', model, version, percent: 100 }, by);
    }
    await catalog.setRollout({ channel: 'stable', model: 'faces', version: '3.1.0', percent: 40 }, by);
    const ask = async (model: string, version: string): Promise<void> => {
      const response = await fetch(`${listening.url}/v1/admin/rollouts/stable/${model}/programme`, {
        method: 'POST',
        headers: { authorization: `Bearer ${keys.publisher}`, 'content-type': 'application/json' },
        body: JSON.stringify({ version }),
      });
      if (!response.ok) throw new Error(`The programme did not start: ${await response.text()}`);
    };
    await ask('digits', '1.2.0');
    await ask('speech', '2.0.0');
    const ids = await rolloutIds();
    const guards = services.jobs.find(({ name }) => name === 'guards');
    for (let look = 0; look < 20; look += 1) {
      const [digits = '', speech = ''] = [ids['digits'], ids['speech']];
      // One in eight fails with the candidate, and one in thirty did before.
      if (look < 14) await writeStage(db, digits, look, platform.now(), 8);
      await writeStage(db, speech, look, platform.now(), 30);
      await guards?.run(platform.now(), new AbortController().signal);
      behindMs -= 5 * 60_000;
    }
  }

  async function rolloutIds(): Promise<Readonly<Record<string, string>>> {
    const { published } = await catalog.state();
    return Object.fromEntries((published?.channels['stable'] ?? []).map(({ model, id }) => [model, id]));
  }
}

/** Times of calls around a median, in seconds. */
function timesOf(median: number, calls = 60): HistogramCounts {
  const histogram = createHistogram();
  for (let i = 0; i < calls; i += 1) {
    // Quantiles of a log-normal distribution, near enough.
    const z = Math.log((i + 0.5) / (calls - i - 0.5)) / 1.7;
    histogram.record(median * Math.exp(0.45 * z));
  }
  return histogram.snapshot();
}

const stageTimes = JSON.stringify(timesOf(0.02));

/** Devices that a stage hears of between two looks; one in `every` fails with the candidate. */
async function writeStage(
  db: Kysely<Schema>,
  rollout: string,
  look: number,
  at: number,
  every: number,
): Promise<void> {
  const device = (arm: string, i: number): StageDeviceTable => ({
    ...{ rollout, stage: 0, arm, dev: `${rollout.slice(0, 6)}${arm}${look}-${i}`, cls: i % 4 === 0 ? 6 : 9 },
    ...{ n: 60, errors: i % (arm === 't' ? every : 30) === 0 ? 9 : 0 },
    ...{ fatals: 0, rejections: 0, activations: 1, mem: 1.8e8, hist: stageTimes, outputs: '', biz: '' },
    ...{ base_n: 400, base_errors: 1, base_p95: 0.05, base_load: 0, base_mem: 1.8e8 },
    ...{ consent: 1, load: '' },
    ...{ first_at: at - hourMs, activated_at: at - hourMs, last_at: at - 60_000, gap: 300_000 },
    ...{ judged_at: 0, verdicts: '' },
  });
  const rows = [
    ...Array.from({ length: 24 }, (_, i) => device('t', i)),
    ...Array.from({ length: 216 }, (_, i) => device('c', i)),
  ];
  await db.insertInto('stage_device').values(rows).execute();
}

interface Line {
  readonly model: string;
  readonly version: string;
  readonly arm: string;
  readonly cls: number;
  readonly devices: number;
  readonly median: number;
  readonly errorRate: number;
}

const profileHash = '0011223344556677';
const deciles = [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1];

function linesOf(): readonly Line[] {
  const base = (model: string, version: string, devices: number, median: number): Line[] => [
    { model, version, arm: '', cls: 9, devices, median, errorRate: 0.003 },
    {
      model,
      version,
      arm: '',
      cls: 6,
      devices: Math.round(devices / 3),
      median: median * 2,
      errorRate: 0.006,
    },
  ];
  const arm = (line: Line | undefined, name: string, version: string, share: number, slower = 1): Line[] =>
    line === undefined
      ? []
      : [
          {
            ...line,
            ...{ arm: name, version, devices: Math.round(line.devices * share) },
            ...{ median: line.median * slower, errorRate: line.errorRate * slower ** 4 },
          },
        ];
  const digits = base('digits', '1.1.0', 2400, 0.012);
  const speech = base('speech', '1.4.0', 900, 0.08);
  return [
    ...digits,
    ...arm(digits[0], 'c', '1.1.0', 0.1),
    ...arm(digits[0], 't', '1.2.0', 0.1, 1.5),
    ...speech,
    ...arm(speech[0], 'c', '1.4.0', 0.1),
    ...arm(speech[0], 't', '2.0.0', 0.06, 0.9),
    { model: 'faces', version: '3.1.0', arm: '', cls: 5, devices: 8, median: 0.03, errorRate: 0 },
  ];
}

/** Counts of a day by five minutes, of two weeks by day, and who runs what. */
async function writeCounts(
  db: Kysely<Schema>,
  rollouts: Readonly<Record<string, string>>,
  now: number,
): Promise<void> {
  const profile = profileOf();
  const named = { model: 'digits', version: '1.1.0' };
  await db
    .insertInto('profile')
    .values({ ...named, hash: profileHash, body: JSON.stringify(profile) })
    .execute();
  const rolls: { res: number; series: number; t_s: number; body: string }[] = [];
  const devices: Schema['device'][] = [];
  for (const line of linesOf()) {
    const { model, version, arm, cls } = line;
    const rollout = arm === '' ? '' : (rollouts[model] ?? '');
    const place = { model, version, rollout, stage: 0, arm, cls };
    const { id: series } = await db
      .insertInto('series')
      .values({ app: 'stable', ...place })
      .returning('id')
      .executeTakeFirstOrThrow();
    const hist = timesOf(line.median, 200);
    const add = (res: number, t_s: number, hours: number): void => {
      const wave = 1 + 0.4 * Math.sin((t_s / 86_400) * 2 * Math.PI);
      const n = Math.round(line.devices * 12 * hours * wave);
      const failed = Math.round(n * line.errorRate * (1 + 0.5 * Math.sin(t_s / 2000)));
      const isProfiled = model === 'digits' && version === '1.1.0' && arm === '';
      const age = (now / 1000 - t_s) / 86_400;
      const body: Aggregate = {
        ...{ n, ok: n - failed, dev: newIn(line.devices, res) },
        ...(failed > 0 && {
          err: { run_failed: failed - Math.floor(failed / 4), deadline: Math.floor(failed / 4) },
        }),
        ...{
          cold: Math.round(line.devices * hours * 0.3),
          hit: Math.round(n * 0.4),
          miss: n - Math.round(n * 0.4),
        },
        h: { lat: scaled(hist, (n / 200) * wave), load: timesOf(line.median * 20, 40) },
        mem: [2.4e8, 1.6e8 * line.devices * (1 + line.median), line.devices],
        cost: n * 12,
        ...(isProfiled && {
          x: {
            [profileHash]: {
              ink: shifted(n, 0.01),
              width: shifted(n, Math.max(0, 0.9 - age * 0.12)),
            },
          },
          p: { [profileHash]: { confidence: shifted(n, Math.max(0, 0.4 - age * 0.1)) } },
          fb: {
            ...{ n: Math.round(n * 0.002), ok: Math.round(n * 0.00197) },
            cal: Array.from({ length: 20 }, (_, i): [number, number, number] => {
              const m = Math.round(n * 0.00002 * (i + 1) ** 1.5);
              return [m, Math.round(m * (0.15 + (0.8 * (i + 0.5)) / 20)), (m * (i + 0.5)) / 20];
            }),
          },
        }),
      };
      rolls.push({ res, series, t_s, body: JSON.stringify(body) });
    };
    const nowS = now / 1000;
    for (const [res, count, hours] of [
      [300, 288, 1 / 12],
      [3600, 30, 1],
      [86_400, 15, 24],
    ] as const) {
      const last = Math.floor(nowS / res) * res;
      for (let i = 0; i < count; i += 1) add(res, last - i * res, hours);
    }
    for (let i = 0; i < line.devices; i += 1) {
      devices.push({
        ...{ dev: `${model}${arm}${cls}-${i}`, ...place, sdk: 'inlay/0.1.0', runtime: 'web', app: 'stable' },
        ...{ first_at: now - hourMs, last_at: now - 30_000, last_t_s: 0, counted: '{}' },
      });
    }
  }
  for (const piece of inPieces(rolls)) await db.insertInto('roll').values(piece).execute();
  for (const piece of inPieces(devices)) await db.insertInto('device').values(piece).execute();
  const hourS = Math.floor(now / hourMs) * 3600;
  const hourly = (name: string, n: (i: number) => number) =>
    Array.from({ length: 24 }, (_, i) => ({ t_s: hourS - i * 3600, name, n: Math.round(n(i)) }));
  const health = [
    ...hourly('reports', (i) => 3000 + 500 * Math.sin(i / 3)),
    ...hourly('windows', (i) => 6200 + 900 * Math.sin(i / 3)),
    ...hourly('duplicates', (i) => 12 + (i % 5)),
    ...hourly('lost', (i) => i % 14),
    ...hourly('skewed', (i) => i % 3),
    ...hourly('consent_necessary', () => 40),
    ...hourly('consent_full', () => 170),
  ].filter(({ n }) => n > 0);
  await db.insertInto('health').values(health).execute();
}

/** Devices that are new in each span, where all of them report all the time. */
function newIn(devices: number, res: number): [number, number, number] {
  return [300, 3600, 86_400].map((span) => Math.round((devices * Math.min(span, res)) / span)) as [
    number,
    number,
    number,
  ];
}

/** A histogram with so many times the counts. */
function scaled(hist: HistogramCounts, by: number): HistogramCounts {
  return {
    ...hist,
    sum: hist.sum * by,
    b: hist.b.map((value, i) => (i % 2 === 0 ? value : Math.ceil(value * by))),
  };
}

/** Counts of deciles that lean to the upper ones, then null, then out of range. */
function shifted(n: number, lean: number): number[] {
  const bins = Array.from({ length: 10 }, (_, i) => Math.round((n / 10) * (1 + (lean * (i - 4.5)) / 4.5)));
  return [...bins, 0, Math.round(n * 0.002)];
}

function profileOf() {
  const feature = (tensor: string, title: string) => ({
    ...{ type: 'number', edges: deciles, counts: [...deciles.slice(1).map(() => 1000), 0, 20] },
    ...{ mean: 0.5, std: 0.29, tensor, reading: 'mean', title },
  });
  return {
    v: 1,
    inputs: { ink: feature('x', 'Ink'), width: feature('x', 'Width of strokes') },
    outputs: { confidence: { ...feature('y', 'Confidence'), reading: 'max' } },
    accuracy: 0.991,
  };
}

async function writeAlarms(db: Kysely<Schema>, now: number): Promise<void> {
  const state = (name: 'firing' | 'acked', rank: 1 | 2, at: number) => ({
    ...{ state: name, rank, clearSince: 0, firedAt: at, seenAt: now },
    heldSince: [at, rank > 1 ? at : 0, 0] as const,
  });
  const errorsAt = now - 22 * 60_000;
  const driftAt = now - 5 * hourMs;
  const errors = {
    ...{ fingerprint: 'e'.repeat(64), rule: 'error-rate', labels: { model: 'digits', version: '1.2.0' } },
    ...{
      value: 0.034,
      text: '3.4 % of the calls of digits 1.2.0 fail, 4.1 times as many as in the week before.',
    },
  };
  const drift = {
    ...{ fingerprint: 'd'.repeat(64), rule: 'drift', labels: { model: 'digits', feature: 'width' } },
    ...{ value: 2, text: 'The input “width” of digits 1.1.0 differs from its reference.' },
  };
  const rest = { updatedAt: now, newsAt: now, escalatedTo: [] };
  await writeAlerts(db, [
    { ...errors, ...rest, state: state('firing', 2, errorsAt), peak: 2, ackedBy: null },
    { ...drift, ...rest, state: state('acked', 1, driftAt), peak: 1, ackedBy: '3fa91c02' },
  ]);
  await writeEvents(db, [
    { ...drift, at: driftAt, kind: 'firing', rank: 1 },
    { ...drift, at: driftAt + hourMs, kind: 'acked', rank: 1, text: '3fa91c02' },
    { ...errors, at: errorsAt - 120_000, kind: 'pending', rank: 1 },
    { ...errors, at: errorsAt, kind: 'firing', rank: 2 },
  ]);
}
