import { join } from 'node:path';
import { Readable } from 'node:stream';
import type { Kysely } from 'kysely';
import { onTestFinished } from 'vitest';
import { addRelease, createRoot, createTargets, expiresIn } from '../../src/publish/release.ts';
import { signMetadata } from '../../src/publish/sign.ts';
import { createCatalog, type Catalog } from '../../src/server/catalog.ts';
import { plansOf } from '../../src/server/channels.ts';
import { openDatabase } from '../../src/server/db/open.ts';
import { createRepository } from '../../src/server/db/repository.ts';
import type { Schema, StageDeviceTable } from '../../src/server/db/schema.ts';
import { createGuards, type GuardEvent, type Guards } from '../../src/server/guards/guards.ts';
import { openDiskStorage } from '../../src/server/storage/disk.ts';
import { createHistogram } from '../../src/telemetry/histogram.ts';
import type { SignedPlan } from '../../src/update/plan.ts';
import { createSigner, sha256, temporaryDirectory, testPlatform, tinyModel } from './server-fixture.ts';

/** A device of a stage, with what is told about it. */
export type DeviceRow = Partial<StageDeviceTable> & { readonly dev: string; readonly arm: string };

/** A server's catalog and guards, over a real database and a real signer. */
export interface GuardWorld {
  readonly db: Kysely<Schema>;
  readonly catalog: Catalog;
  readonly guards: Guards;
  readonly events: GuardEvent[];
  readonly errors: unknown[];
  now(): number;
  advanceMinutes(minutes: number): void;
  /** Runs the job once. */
  look(): Promise<void>;
  /** The plan in force. */
  plan(): Promise<SignedPlan>;
  /** Writes devices as ingest does. */
  report(devices: readonly DeviceRow[]): Promise<void>;
  /** Guards of another replica. */
  replica(): Guards;
  /** Makes the next signatures fail. */
  refuse(error: Error | undefined): void;
}

/** Three releases, of which everybody runs the first. */
export async function openGuardWorld(target?: string): Promise<GuardWorld> {
  const folder = await temporaryDirectory();
  const platform = testPlatform();
  const { db } = await openDatabase(target ?? join(folder, 'inlay.db'));
  onTestFinished(() => db.destroy());
  const blobs = await openDiskStorage({ directory: join(folder, 'blobs'), platform });
  const online = await createSigner(platform);
  const repository = createRepository(db, () => platform.now());
  const real = createCatalog({ repository, blobs, signer: online, platform });
  let refusal: Error | undefined;
  const refusing =
    <Parts extends readonly unknown[], Result>(task: (...parts: Parts) => Promise<Result>) =>
    async (...parts: Parts): Promise<Result> => {
      if (refusal) throw refusal;
      return task(...parts);
    };
  const catalog: Catalog = {
    ...real,
    setRollout: refusing(real.setRollout),
    changeRollout: refusing(real.changeRollout),
  };

  const [rootSigner, signer] = [await createSigner(platform), await createSigner(platform)];
  const expires = expiresIn(platform.now(), 180);
  const { onlineKey } = catalog;
  const root = createRoot({ rootKeys: [rootSigner], targetsKeys: [signer], onlineKey, expires });
  await catalog.installRoot(await signMetadata(root, [rootSigner]), 'test');
  let targets = createTargets({ onlineKey, expires });
  for (const version of ['1.0.0', '2.0.0', '3.0.0']) {
    const bytes = tinyModel(version);
    const hash = sha256(bytes);
    await blobs.write(hash, Readable.from([bytes]), bytes.length);
    const release = {
      model: 'digits',
      version,
      file: 'digits.onnx',
      length: bytes.length,
      sha256: hash,
      expires,
    };
    ({ targets } = addRelease(targets, release));
  }
  await catalog.installTargets(await signMetadata({ ...targets, version: 1 }, [signer]), 'test');
  await catalog.setRollout({ channel: 'stable', model: 'digits', version: '1.0.0', percent: 100 }, 'test');

  const events: GuardEvent[] = [];
  const errors: unknown[] = [];
  const replica = (): Guards =>
    createGuards({
      db,
      catalog,
      platform,
      onError: (error) => errors.push(error),
      onEvent: (event) => events.push(event),
    });
  const guards = replica();
  const plan = async (): Promise<SignedPlan> => {
    const { published } = await catalog.state();
    const [found] = plansOf(published?.channels ?? {}, 'stable');
    if (!found) throw new Error('There is no plan.');
    return found;
  };
  return {
    db,
    catalog,
    guards,
    events,
    errors,
    now: () => platform.now(),
    advanceMinutes: (minutes) => platform.advanceHours(minutes / 60),
    look: () => guards.job.run(platform.now(), new AbortController().signal),
    plan,
    report: async (devices) => {
      const { id: rollout, stage = 0 } = await plan();
      const rows = devices.map((device) => ({
        ...blank,
        rollout,
        stage,
        first_at: platform.now(),
        ...device,
      }));
      for (let i = 0; i < rows.length; i += 200) {
        await db
          .insertInto('stage_device')
          .values(rows.slice(i, i + 200).map((row) => ({ ...row, last_at: row.last_at || row.first_at })))
          .execute();
      }
    },
    replica,
    refuse: (error) => {
      refusal = error;
    },
  };
}

/** Times of which all are so long, in seconds, as devices send them. */
export function timesOf(seconds: number, calls = 60): string {
  const histogram = createHistogram();
  for (let i = 0; i < calls; i += 1) histogram.record(seconds);
  return JSON.stringify(histogram.snapshot());
}

/** Devices that do well, of which some are changed. */
export function devicesOf(
  arm: string,
  count: number,
  change: (i: number) => Partial<StageDeviceTable> = () => ({}),
): DeviceRow[] {
  return Array.from({ length: count }, (_, i) => ({
    dev: `${arm}${String(i).padStart(6, '0')}`,
    arm,
    n: 60,
    base_n: 100,
    base_p95: 0.02,
    base_mem: 1e8,
    mem: 1e8,
    hist: fine,
    ...change(i),
  }));
}

const fine = timesOf(0.02);

const blank: Omit<StageDeviceTable, 'rollout' | 'stage' | 'dev' | 'arm'> = {
  cls: 3,
  consent: 1,
  n: 0,
  errors: 0,
  fatals: 0,
  rejections: 0,
  activations: 0,
  base_n: 0,
  base_errors: 0,
  base_p95: 0,
  base_load: 0,
  base_mem: 0,
  mem: 0,
  hist: '',
  load: '',
  outputs: '',
  biz: '',
  first_at: 0,
  activated_at: 0,
  last_at: 0,
  gap: 0,
  judged_at: 0,
  verdicts: '',
};
