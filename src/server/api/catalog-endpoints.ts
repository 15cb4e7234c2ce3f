/** Releases and rollouts, as `docs/protocol.md` describes them. */

import { z } from 'zod';
import { ServerError } from '../../core/errors.ts';
import type { Platform } from '../../core/platform.ts';
import { rolloutActions, type RolloutAction } from '../../publish/rollout.ts';
import { metadataCaps } from '../../trust/client.ts';
import { openBody, readBody } from '../body.ts';
import type { Catalog } from '../catalog.ts';
import { plansOf } from '../channels.ts';
import type { Repository } from '../db/repository.ts';
import type { Guards } from '../guards/guards.ts';
import { readActionBody, readRolloutBody } from '../rollout-body.ts';
import { createStatus } from '../status.ts';
import type { BlobStorage } from '../storage/blobs.ts';
import { planSchema, recordSchema, rolloutSchema, statusSchema } from './answer-schemas.ts';
import { endpoint, type Endpoint } from './endpoint.ts';
import { nameParam } from './inputs.ts';

/** What these routes work on. */
export interface CatalogParts {
  readonly catalog: Catalog;
  /** Told of what people do to rollouts, so that programmes follow. */
  readonly guards: Pick<Guards, 'act'>;
  readonly repository: Repository;
  readonly blobs: BlobStorage;
  readonly platform: Pick<Platform, 'now'>;
  /** Largest file that is taken in, bytes. */
  readonly maxBlobBytes: number;
}

/** Records that are looked through for those of one rollout. */
const mostRecords = 1000;

const version = z.object({ version: z.number() });
const blob = z.object({ sha256: z.string(), sizeBytes: z.number() });
const blobParams = z.object({ sha256: z.string().regex(/^[0-9a-f]{64}$/, 'It is a SHA-256 in hex.') });
const rolloutParams = z.object({ channel: nameParam, model: nameParam });

const rolloutBody = z
  .looseObject({
    version: z.string().meta({ description: 'Published version.' }),
    percent: z.number().meta({ description: 'Share in (0, 100].' }),
    reason: z.string().optional(),
    dryRun: z.boolean().optional(),
  })
  .meta({ description: 'Further options are those of `inlay rollout set`; unknown ones are refused.' });

const actionBody = z.object({ reason: z.string().optional(), dryRun: z.boolean().optional() });

/** Creates the routes. */
export function createCatalogEndpoints(parts: CatalogParts): readonly Endpoint[] {
  const { catalog, guards, repository, blobs, platform, maxBlobBytes } = parts;
  return [
    endpoint({
      method: 'put',
      path: '/root',
      summary: 'Installs the first root or the next one',
      role: 'admin',
      isBinary: true,
      signs: true,
      answer: version,
      handle: async ({ raw, actor }) => ({
        version: await catalog.installRoot(await readBody(raw, metadataCaps.root), actor),
      }),
    }),
    endpoint({
      method: 'put',
      path: '/targets',
      summary: 'Installs the next targets: releases, signed offline',
      role: 'publisher',
      isShared: true,
      isBinary: true,
      signs: true,
      answer: version,
      handle: async ({ raw, actor }) => ({
        version: await catalog.installTargets(await readBody(raw, metadataCaps.targets), actor),
      }),
    }),
    endpoint({
      method: 'get',
      path: '/blobs/{sha256}',
      summary: 'Tells whether a file is there',
      role: 'viewer',
      isShared: true,
      params: blobParams,
      answer: blob,
      handle: async ({ params: { sha256 } }) => {
        const sizeBytes = await blobs.size(sha256);
        if (sizeBytes !== undefined) return { sha256, sizeBytes };
        throw new ServerError('ERR_INLAY_NOT_FOUND', `There is no blob ${sha256} here.`);
      },
    }),
    endpoint({
      method: 'put',
      path: '/blobs/{sha256}',
      summary: 'Uploads a file',
      role: 'publisher',
      isShared: true,
      isBinary: true,
      params: blobParams,
      answer: blob,
      handle: async ({ params: { sha256 }, raw }) => ({
        sha256,
        sizeBytes: await blobs.write(sha256, openBody(raw, maxBlobBytes), maxBlobBytes),
      }),
    }),
    endpoint({
      method: 'get',
      path: '/rollouts/{channel}/{model}',
      summary: 'Reads the plan of a model, and what was done to it',
      role: 'viewer',
      params: rolloutParams,
      answer: z.object({ plan: planSchema, records: z.array(recordSchema) }),
      handle: async ({ params: { channel, model } }) => {
        const { published } = await catalog.state();
        const plan = plansOf(published?.channels ?? {}, channel).find((known) => known.model === model);
        if (!plan) {
          throw new ServerError(
            'ERR_INLAY_NOT_FOUND',
            `Model ${model} has no rollout in channel ${channel}; start one with \`inlay rollout set\`.`,
          );
        }
        const records = (await repository.audit(mostRecords)).filter(
          ({ details }) => details['channel'] === channel && details['model'] === model,
        );
        return { plan, records: [...records] };
      },
    }),
    endpoint({
      method: 'put',
      path: '/rollouts/{channel}/{model}',
      summary: 'Starts, raises or completes a rollout by hand',
      role: 'publisher',
      signs: true,
      params: rolloutParams,
      body: { schema: rolloutBody, read: readRolloutBody },
      answer: rolloutSchema,
      handle: ({ params, body, actor }) => catalog.setRollout({ ...body, ...params }, actor),
    }),
    ...rolloutActions.map((action) => actionEndpoint(catalog, guards, action)),
    endpoint({
      method: 'get',
      path: '/status',
      summary: 'Sums up what is installed',
      role: 'viewer',
      isShared: true,
      answer: statusSchema,
      handle: async () =>
        createStatus(catalog.onlineKey, await catalog.state(), await blobs.usage(), platform.now()),
    }),
  ];
}

const about: Readonly<Record<RolloutAction, string>> = {
  pause: 'Lets no further device begin',
  resume: 'Lets a paused or halted rollout go on',
  halt: 'Stops a rollout: devices on trial go back',
  rollback: 'Takes a version back from every device',
  promote: 'Gives the version to all devices at once',
  retry: 'Lets devices try again that rejected the version',
};

function actionEndpoint(catalog: Catalog, guards: Pick<Guards, 'act'>, action: RolloutAction): Endpoint {
  return endpoint({
    method: 'post',
    path: `/rollouts/{channel}/{model}/${action}`,
    summary: about[action],
    role: 'publisher',
    signs: true,
    params: rolloutParams,
    body: { schema: actionBody, read: (fields) => readActionBody(fields, action) },
    answer: planSchema,
    handle: async ({ params, body, actor }) => {
      const { dryRun = false, ...why } = body;
      if (dryRun || action === 'retry') return catalog.changeRollout({ ...body, ...params, action }, actor);
      return (await guards.act({ ...params, ...why, action }, actor)).plan;
    },
  });
}
