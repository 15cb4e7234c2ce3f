import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { toUtf8 } from '../../src/core/bytes.ts';
import { addRelease, createTargets } from '../../src/publish/release.ts';
import { listReleases } from '../../src/publish/release.ts';
import type { CatalogState, Published } from '../../src/server/catalog-state.ts';
import { devicesOf, partsOf, readCounts } from '../../src/server/counts.ts';
import { createDrift } from '../../src/server/drift/drift.ts';
import type { Profile } from '../../src/telemetry/profile.ts';
import { createHash } from 'node:crypto';
import { openCounts } from './server-fleet-counts.ts';

const day = 86_400_000;
const now = Date.parse('2026-03-10T10:02:00Z');

const profile: Profile = {
  v: 1,
  inputs: {
    length: {
      type: 'number',
      edges: [0, 10, 20, 30, 40],
      counts: [2500, 2500, 2500, 2500, 0, 0],
      mean: 20,
      std: 11.2,
      tensor: 'text',
      reading: 'mean',
    },
  },
  outputs: {
    label: {
      type: 'category',
      values: ['0', '1', '2'],
      counts: [4000, 3000, 3000, 0, 0],
      tensor: 'scores',
      reading: 'argmax',
    },
  },
  accuracy: 0.9,
};
const bytes = toUtf8(JSON.stringify(profile));
const sha256 = createHash('sha256').update(bytes).digest('hex');
const hash = sha256.slice(0, 16);

const closers: (() => Promise<void>)[] = [];
afterEach(async () => {
  await Promise.all(closers.splice(0).map((close) => close()));
});

/** A server with one release that has a profile. */
async function world(options: { readonly kAnonymity?: number; readonly content?: Uint8Array } = {}) {
  const counts = await openCounts();
  closers.push(() => counts.db.destroy());
  const empty = createTargets({
    onlineKey: { keyid: 'k', key: { keytype: 'ed25519', scheme: 'ed25519', keyval: { public: '00' } } },
    expires: '2030-01-01T00:00:00Z',
  });
  const { targets } = addRelease(empty, {
    model: 'digits',
    version: '1.0.0',
    file: 'm.onnx',
    length: 3,
    sha256: 'a'.repeat(64),
    companions: [{ file: 'profile.json', role: 'profile', length: bytes.length, sha256 }],
    expires: '2030-01-01T00:00:00Z',
  });
  const releases = new Map(listReleases(targets).map((release) => [release.path, release]));
  const published: Pick<Published, 'targets' | 'releases'> = { targets, releases };
  const errors: unknown[] = [];
  const drift = createDrift({
    db: counts.db,
    catalog: { state: () => Promise.resolve({ published } as CatalogState) },
    blobs: { read: () => new Blob([new Uint8Array(options.content ?? bytes)]).stream() },
    platform: { now: () => now },
    onError: (error) => errors.push(error),
    ...(options.kAnonymity !== undefined && { kAnonymity: options.kAnonymity }),
  });
  return { ...counts, drift, errors };
}

const steady = {
  p: { [hash]: { label: [400, 300, 300, 0, 0] } },
  x: { [hash]: { length: [250, 250, 250, 250, 0, 0] } },
};
const shifted = {
  p: { [hash]: { label: [100, 100, 800, 0, 0] } },
  x: { [hash]: { length: [250, 250, 250, 250, 0, 0] } },
};

describe('partsOf', () => {
  it('covers a span once, in whole days and hours where there are any', () => {
    fc.assert(
      fc.property(fc.nat({ max: 4_000_000 }), fc.nat({ max: 1_000_000 }), (from, length) => {
        const parts = partsOf(from, from + length);
        const sorted = [...parts].sort((a, b) => a.from - b.from);
        let at = Math.floor(from / 300) * 300;
        for (const part of sorted) {
          expect(part.from).toBe(at);
          expect(part.from % part.res).toBe(0);
          expect(part.to % part.res).toBe(0);
          at = part.to;
        }
        expect(at).toBe(Math.max(Math.floor(from / 300) * 300, Math.floor((from + length) / 300) * 300));
        const rows = parts.reduce((sum, part) => sum + (part.to - part.from) / part.res, 0);
        expect(rows).toBeLessThan(length / 86_400 + 2 * 24 + 2 * 12 + 1);
      }),
    );
  });
});

describe('readCounts', () => {
  it('adds what is folded and what is not, whatever the resolution', async () => {
    const { db, fold, delta } = await world();
    const t = Date.parse('2026-03-07T22:10:00Z');
    for (const at of [t, t + 3_600_000, t + day, t + 2 * day]) await fold(at, 'digits', '1.0.0', { n: 1 });
    await delta(t + day + 300_000, 'digits', '1.0.0', { n: 10 });
    const sum = async (from: number, to: number) =>
      (await readCounts(db, { model: 'digits' }, from / 1000, to / 1000)).reduce(
        (all, { counts }) => all + counts.n,
        0,
      );
    expect(await sum(t, t + 3 * day)).toBe(14);
    expect(await sum(t, t + day)).toBe(2);
    expect(await sum(t + 300_000, t + 2 * day)).toBe(12);
    expect(await readCounts(db, { model: "x' OR 1=1 --" }, 0, now / 1000)).toEqual([]);
  });

  it('counts devices once where they report all the time', () => {
    const at = (t: number, dev: [number, number, number]) => ({
      ...{ t, res: 300 },
      counts: { n: 0, ok: 0, dev },
    });
    expect(devicesOf([at(0, [50, 50, 50]), at(300, [50, 0, 0]), at(600, [60, 10, 10])])).toBe(60);
    expect(devicesOf([at(0, [50, 50, 50]), at(3600, [50, 50, 0]), at(7200, [50, 50, 30])])).toBe(80);
    expect(devicesOf([])).toBe(0);
  });
});

describe('drift', () => {
  it('is none where the counts are those of the reference', async () => {
    const { drift, fold } = await world();
    await fold(now - 3_600_000, 'digits', '1.0.0', { n: 1000, ok: 1000, dev: [100, 100, 100], ...steady });
    const { rows } = await drift.answer({ model: 'digits' });
    const training = rows.filter(({ against }) => against === 'training');
    expect(training.map(({ feature, verdict, n, devices }) => [feature, verdict, n, devices])).toEqual([
      ['label', 'none', 1000, 100],
      ['length', 'none', 1000, 100],
    ]);
    expect(training[0]).toMatchObject({
      bins: ['0', '1', '2', 'null', 'other'],
      reference: [0.4, 0.3, 0.3, 0, 0],
      current: [0.4, 0.3, 0.3, 0, 0],
      ks: null,
    });
    expect(training[1]?.ks).toBeCloseTo(0, 12);
    expect(
      rows.filter(({ against }) => against === 'rolling').every(({ verdict }) => verdict === 'too-few'),
    ).toBe(true);
  });

  it('is found against training and against the week before, apart from each other', async () => {
    const { drift, fold, delta } = await world();
    for (let back = 2; back <= 5; back += 1) {
      await fold(now - back * day, 'digits', '1.0.0', {
        n: 1000,
        ok: 1000,
        dev: [100, 100, 100],
        ...shifted,
      });
    }
    await delta(now - 60_000, 'digits', '1.0.0', { n: 1000, ok: 1000, dev: [100, 100, 100], ...shifted });
    const { rows } = await drift.answer({ model: 'digits' });
    const of = (feature: string, against: string) =>
      rows.find((row) => row.feature === feature && row.against === against);
    expect(of('label', 'training')).toMatchObject({ verdict: 'critical', kind: 'output' });
    expect(of('label', 'rolling')).toMatchObject({ verdict: 'none', n: 1000 });
    expect(of('length', 'training')?.verdict).toBe('none');
    const history = of('label', 'training')?.history ?? [];
    expect(history).toHaveLength(14);
    expect(history.map((psi) => psi !== null && psi > 0.25)).toEqual(
      Array.from({ length: 14 }, (_, i) => i === 13 || (i >= 8 && i <= 11)),
    );
    expect((await drift.rows({}, 'training')).map(({ verdict }) => verdict)).toEqual(['critical', 'none']);
  });

  it('leaves out what was counted into bins of another profile', async () => {
    const { drift, delta } = await world();
    const other = {
      p: { ffffffffffffffff: { label: [0, 0, 1000, 0, 0] }, '': { label: [0, 0, 1000, 0, 0] } },
    };
    await delta(now, 'digits', '1.0.0', { n: 1000, ok: 1000, dev: [100, 100, 100], ...other });
    await delta(now, 'digits', '1.0.0', { p: { [hash]: { label: [1, 2] } } });
    const { rows } = await drift.answer();
    expect(rows.every(({ n, verdict }) => n === 0 && verdict === 'too-few')).toBe(true);
  });

  it('hides what fewer than 20 devices counted', async () => {
    const { drift, delta } = await world();
    await delta(now, 'digits', '1.0.0', {
      n: 1000,
      ok: 1000,
      dev: [19, 19, 19],
      ...shifted,
      fb: { n: 50, ok: 10 },
    });
    const { rows, concept } = await drift.answer();
    expect(rows[0]).toMatchObject({ n: 0, devices: 0, psi: null, current: [], verdict: 'too-few' });
    expect(concept[0]).toMatchObject({ labelled: 0, accuracy: null, logE: null, calibration: [] });
  });

  it('takes the noise out of counts with local privacy', async () => {
    const { drift, delta } = await world();
    // What 0.25, 0.25, 0.25, 0.25, 0, 0 becomes at ε = ln 5 with six answers: kept in half of the cases.
    const noised = [4000, 4000, 4000, 4000, 2000, 2000];
    await delta(now, 'digits', '1.0.0', {
      n: 20_000,
      ok: 20_000,
      dev: [2000, 2000, 2000],
      x: { [`${hash}~${Math.log(5)}`]: { length: noised } },
    });
    const row = (await drift.rows({}, 'training')).find(({ feature }) => feature === 'length');
    for (const [i, share] of [0.25, 0.25, 0.25, 0.25, 0, 0].entries())
      expect(row?.current[i]).toBeCloseTo(share, 6);
    expect(row?.verdict).toBe('none');
    expect(row?.n).toBeLessThan(20_000);
  });

  it('weighs labels by an e-process, with their coverage', async () => {
    const { drift, delta } = await world();
    const fb = { n: 300, ok: 240, cal: [[100, 70, 80] as const, [200, 170, 190] as const] };
    await delta(now, 'digits', '1.0.0', { n: 1000, ok: 1000, dev: [100, 100, 100], fb });
    await delta(now, 'digits', '0.9.0', { n: 20, ok: 20, dev: [100, 100, 100], fb: { n: 20, ok: 20 } });
    await delta(now, 'digits', '0.8.0', { n: 20, ok: 20, dev: [100, 100, 100], fb: { n: 19, ok: 19 } });
    const { concept } = await drift.answer();
    expect(concept).toMatchObject([
      { version: '1.0.0', labelled: 300, coverage: 0.3, accuracy: 0.8, reference: 0.9, calibration: fb.cal },
      { version: '0.9.0', labelled: 20, reference: null, logE: null },
      { version: '0.8.0', labelled: 0, accuracy: null },
    ]);
    expect(concept[0]?.logE ?? 0).toBeGreaterThan(Math.log(20));
  });

  it('goes on without a profile that cannot be read', async () => {
    const { drift, errors } = await world({ content: toUtf8('{"v":2}') });
    expect((await drift.answer()).rows).toEqual([]);
    expect(errors).toHaveLength(1);
    await drift.answer();
    expect(errors).toHaveLength(1);
  });

  it('remembers profiles of releases that are gone', async () => {
    const { drift, db, delta } = await world();
    await drift.profiles();
    await delta(now, 'digits', '1.0.0', { n: 1000, ok: 1000, dev: [100, 100, 100], ...steady });
    const later = createDrift({
      db,
      catalog: { state: () => Promise.resolve({ published: undefined } as CatalogState) },
      blobs: { read: () => new Blob([]).stream() },
      platform: { now: () => now },
    });
    expect((await later.rows({}, 'training')).map(({ verdict }) => verdict)).toEqual(['none', 'none']);
  });
});
