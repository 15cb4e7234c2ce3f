import { Hono } from 'hono';
import { cors } from 'hono/cors';
import { fromUtf8 } from '../../core/bytes.ts';
import { ServerError, StoreError } from '../../core/errors.ts';
import type { Platform } from '../../core/platform.ts';
import { canonicalJson } from '../../trust/canonical-json.ts';
import type { Catalog } from '../catalog.ts';
import type { CatalogState } from '../catalog-state.ts';
import type { Repository, Role } from '../db/repository.ts';
import { createFreshState } from '../freshness.ts';
import {
  immutable,
  represent,
  revalidated,
  sendBlob,
  sendProblem,
  sendText,
  type Representation,
} from '../respond.ts';
import type { BlobStorage } from '../storage/blobs.ts';

/** What the device plane is made of. */
export interface DeviceRoutesOptions {
  readonly catalog: Catalog;
  readonly repository: Pick<Repository, 'text'>;
  readonly blobs: BlobStorage;
  readonly platform: Pick<Platform, 'setTimer'>;
  /** Gets errors that devices do not notice. */
  readonly onError: (error: unknown) => void;
}

/** Creates the routes below `/v1` that devices use: public, and readable from any web page. */
export function createDeviceRoutes(options: DeviceRoutesOptions): Hono {
  const { catalog, repository, blobs } = options;
  const routes = new Hono();
  const freshState = createFreshState(options);
  const encoded = new WeakMap<CatalogState, Map<string, Promise<Representation>>>();

  /** Encodes a text of a state once, since all devices ask for the same ones. */
  const encodeOnce = (state: CatalogState, name: string, write: () => string): Promise<Representation> => {
    const known = encoded.get(state) ?? new Map<string, Promise<Representation>>();
    encoded.set(state, known);
    const representation = known.get(name) ?? represent(write());
    known.set(name, representation);
    return representation;
  };

  const readable = cors({
    origin: '*',
    allowMethods: ['GET', 'HEAD'],
    allowHeaders: ['If-None-Match', 'If-Range', 'Range'],
    maxAge: 86_400,
  });
  for (const path of ['/tip', '/online-key', '/metadata/*', '/targets/*']) routes.use(path, readable);

  routes.get('/tip', async (c) => {
    const query = c.req.query('root') ?? '0';
    if (!/^\d{1,9}$/.test(query)) {
      throw new ServerError(
        'ERR_INLAY_REFUSED',
        'The query `root` is the version of a root: an integer of at least 0.',
      );
    }
    const state = await freshState();
    if (!state.published) {
      return sendProblem(c, 503, 'ERR_INLAY_NOT_FOUND', 'Nothing is installed yet; run `inlay keys init`.');
    }
    const { timestamp, snapshot, rollout } = state.published.texts;
    const since = Math.min(Number(query), state.roots.length);
    const tip = await encodeOnce(state, `tip?root=${since}`, () =>
      JSON.stringify({ roots: state.roots.slice(since), timestamp, snapshot, rollout }),
    );
    return sendText(c, tip, revalidated);
  });

  routes.get('/metadata/timestamp.json', async (c) => {
    const state = await catalog.state();
    const text = state.published?.texts.timestamp;
    if (text === undefined) throw notFound('timestamp.json');
    return sendText(c, await encodeOnce(state, 'timestamp.json', () => text), revalidated);
  });

  routes.get('/metadata/:file', async (c) => {
    const file = c.req.param('file');
    const [, digits, name] = /^(\d{1,9})\.(root|targets|rollout|snapshot)\.json$/.exec(file) ?? [];
    if (name === undefined) throw notFound(file);
    const role = name as VersionedRole;
    const version = Number(digits);
    const state = await catalog.state();
    const present = presentText(state, role, version);
    if (present !== undefined) {
      return sendText(c, await encodeOnce(state, `${version}.${role}`, () => present), immutable);
    }
    const text = await repository.text(role, version);
    if (text === undefined) throw notFound(file);
    return sendText(c, await represent(text), immutable);
  });

  routes.get('/targets/models/:model/:seq/:file', async (c) => {
    const { model, seq, file } = c.req.param();
    const [, sha256 = '', name = ''] = /^([0-9a-f]{64})\.(.+)$/.exec(file) ?? [];
    const listed = (await catalog.state()).published?.files.get(`models/${model}/${seq}/${name}`);
    if (listed?.sha256 !== sha256) throw notFound(file);
    const sizeBytes = await blobs.size(sha256);
    if (sizeBytes !== listed.length) {
      throw new StoreError(
        'ERR_INLAY_STORE_MISSING',
        `The blob ${sha256} is damaged or gone; upload it again.`,
      );
    }
    return sendBlob(c, blobs, sha256, sizeBytes);
  });

  routes.get('/targets/rollout/:file', async (c) => {
    const file = c.req.param('file');
    const [, sha256 = '', name = ''] = /^([0-9a-f]{64})\.(.+)$/.exec(file) ?? [];
    const state = await catalog.state();
    const target = state.published?.rollout.targets[`rollout/${name}`];
    if (target?.hashes['sha256'] !== sha256) throw notFound(file);
    const plans = await encodeOnce(state, `rollout/${name}`, () => fromUtf8(canonicalJson(target.custom)));
    return sendText(c, plans, immutable);
  });

  routes.get('/online-key', (c) => c.json(catalog.onlineKey));

  return routes;
}

/** Roles whose files have their version in their name. */
type VersionedRole = Exclude<Role, 'timestamp'>;

/** Text of a file that is in force; roots all are. */
function presentText(
  { heads, roots, published }: CatalogState,
  role: VersionedRole,
  version: number,
): string | undefined {
  if (role === 'root') return roots[version - 1];
  return heads[role] === version ? published?.texts[role] : undefined;
}

function notFound(file: string): ServerError {
  return new ServerError(
    'ERR_INLAY_NOT_FOUND',
    `There is no file ${JSON.stringify(file.slice(0, 200))} here.`,
  );
}
