/** The server of a simulation: catalog, signer, ingest and guards as they are, over one database in one process. */

import { createHash, webcrypto } from 'node:crypto';
import type { Platform } from '../../core/platform.ts';
import { addRelease, createRoot, createTargets, expiresIn } from '../../publish/release.ts';
import { signMetadata } from '../../publish/sign.ts';
import { generateKeyPair, openSigner, toKeyFile, type Signer } from '../../publish/signer.ts';
import { resolvePlan, type ResolvedPlan } from '../../update/resolve.ts';
import { createCatalog, type Catalog } from '../catalog.ts';
import { openDatabase, type Database } from '../db/open.ts';
import { createRepository } from '../db/repository.ts';
import { createGuards, type GuardEvent, type Guards } from '../guards/guards.ts';
import { createIngest, type Ingest } from '../ingest/ingest.ts';
import { createKnown } from '../ingest/known.ts';

/** Where the simulated devices look for the simulated model. */
export const CHANNEL = 'stable';
export const MODEL = 'simulated';
/** What they run, and what they are to run. */
export const BASE_VERSION = '1.0.0';
export const CANDIDATE_VERSION = '2.0.0';

/** The server of a simulation. */
export interface SimulatedServer {
  readonly catalog: Catalog;
  readonly guards: Guards;
  readonly ingest: Ingest;
  readonly database: Database;
  /** The plan that devices get when they poll now. It is the same object as long as it says the same. */
  plan(): Promise<ResolvedPlan>;
  /** Opens everything anew over the same database, as after a crash. Databases in memory do not outlive that. */
  restart(): Promise<SimulatedServer>;
  close(): Promise<void>;
}

/** What {@link openSimulatedServer} works with. */
export interface SimulatedServerParts {
  readonly platform: Platform;
  /** Path of a SQLite file or URL of PostgreSQL; `:memory:` keeps nothing. */
  readonly target: string;
  readonly onEvent: (event: GuardEvent) => void;
  readonly onError: (error: unknown) => void;
}

/** Opens a server with two releases, of which everybody runs the first. */
export async function openSimulatedServer(parts: SimulatedServerParts): Promise<SimulatedServer> {
  const { platform } = parts;
  const online = await newSigner(platform);
  const server = await start(parts, online);
  await publish(server.catalog, platform);
  return server;
}

async function start(parts: SimulatedServerParts, signer: Signer): Promise<SimulatedServer> {
  const { platform, target, onEvent, onError } = parts;
  const database = await openDatabase(target);
  const { db } = database;
  const repository = createRepository(db, () => platform.now());
  const catalog = createCatalog({ repository, blobs, signer, platform });
  const ingest = createIngest({ db, platform, isKnown: createKnown(catalog.state), onError });
  const guards = createGuards({ db, catalog, platform, onError, onEvent });
  let known: { readonly text: string; readonly plan: ResolvedPlan } | undefined;
  return {
    catalog,
    guards,
    ingest,
    database,
    plan: async () => {
      const { published } = await catalog.state();
      const plan = published && resolvePlan(published, CHANNEL, MODEL);
      if (!plan) throw new Error('The simulated server has lost its plan.');
      const text = JSON.stringify(plan);
      if (known?.text !== text) known = { text, plan };
      return known.plan;
    },
    restart: async () => {
      await db.destroy();
      return start(parts, signer);
    },
    close: async () => {
      await ingest.close();
      await db.destroy();
    },
  };
}

async function publish(catalog: Catalog, platform: Platform): Promise<void> {
  const [rootSigner, signer] = [await newSigner(platform), await newSigner(platform)];
  const expires = expiresIn(platform.now(), 180);
  const { onlineKey } = catalog;
  const root = createRoot({ rootKeys: [rootSigner], targetsKeys: [signer], onlineKey, expires });
  await catalog.installRoot(await signMetadata(root, [rootSigner]), 'simulation');
  let targets = createTargets({ onlineKey, expires });
  for (const version of [BASE_VERSION, CANDIDATE_VERSION]) {
    const release = {
      model: MODEL,
      version,
      file: 'model.onnx',
      length: modelBytes(version).length,
      expires,
    };
    ({ targets } = addRelease(targets, { ...release, sha256: hashOf(modelBytes(version)) }));
  }
  await catalog.installTargets(await signMetadata({ ...targets, version: 1 }, [signer]), 'simulation');
  const first = { channel: CHANNEL, model: MODEL, version: BASE_VERSION, percent: 100 };
  await catalog.setRollout(first, 'simulation');
}

async function newSigner(platform: Platform): Promise<Signer> {
  const { subtle } = webcrypto;
  return openSigner({ subtle, platform }, toKeyFile(await generateKeyPair(subtle)));
}

/** The smallest file that is an ONNX model: IR version 8, opset 17, an empty graph, and a producer to tell it apart. */
function modelBytes(version: string): Buffer {
  const name = Buffer.from(version);
  return Buffer.from([8, 8, 0x12, name.length, ...name, 0x3a, 3, 0x12, 1, 0x67, 0x42, 2, 0x10, 0x11]);
}

/** Nobody downloads anything: that it is there is enough. */
const blobs = {
  size: async (sha256: string): Promise<number | undefined> =>
    [BASE_VERSION, CANDIDATE_VERSION].map(modelBytes).find((bytes) => hashOf(bytes) === sha256)?.length,
};

function hashOf(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}
