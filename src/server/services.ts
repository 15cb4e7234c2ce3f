/** What the server does besides handing out metadata, put together. */

import type { Hono } from 'hono';
import type { Kysely } from 'kysely';
import type { Platform } from '../core/platform.ts';
import { createAlerts } from './alerts/alerts.ts';
import type { ActionNotification } from './alerts/notification.ts';
import { createAccessEndpoints } from './api/access-endpoints.ts';
import { createAlertEndpoints } from './api/alert-endpoints.ts';
import { createCatalogEndpoints } from './api/catalog-endpoints.ts';
import type { Endpoint } from './api/endpoint.ts';
import { createFleetEndpoints } from './api/fleet-endpoints.ts';
import { createGuardEndpoints } from './api/guard-endpoints.ts';
import type { Catalog } from './catalog.ts';
import type { Repository } from './db/repository.ts';
import type { Schema } from './db/schema.ts';
import { createDrift } from './drift/drift.ts';
import { createFleet } from './fleet/fleet.ts';
import { createGuards, type Guards } from './guards/guards.ts';
import { createFoldJob } from './ingest/fold.ts';
import { createIngest, type Ingest } from './ingest/ingest.ts';
import { createKnown } from './ingest/known.ts';
import { createRetentionJob } from './ingest/retention.ts';
import type { Job } from './jobs/job.ts';
import { createOtlpJob } from './metrics/otlp.ts';
import { createMetricsRoutes } from './metrics/routes.ts';
import type { BlobStorage } from './storage/blobs.ts';
import { createTokens, type Tokens } from './tokens.ts';

/** What {@link createServices} needs. */
export interface ServicesParts {
  readonly db: Kysely<Schema>;
  readonly catalog: Catalog;
  readonly repository: Repository;
  readonly blobs: BlobStorage;
  readonly platform: Platform;
  readonly maxBlobBytes: number;
  readonly onError: (error: unknown) => void;
  /** How often the guards look, milliseconds. Default 60,000. */
  readonly lookEveryMs?: number;
  /** Where secrets of contacts are. Default: nothing is there. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Where metrics are pushed over OTLP/HTTP. Default: nowhere. */
  readonly otlpUrl?: string;
  /** Where people reach this server, for links. Default: there are none. */
  readonly publicUrl?: string;
  /** Lets notifications go to this machine. Default false. */
  readonly allowLoopback?: boolean;
}

/** The services of one server. */
export interface Services {
  readonly tokens: Tokens;
  /** Routes of the admin plane. */
  readonly endpoints: readonly Endpoint[];
  /** Takes the reports of devices. */
  readonly ingest: Ingest;
  /** `/metrics`. */
  readonly metrics: Hono;
  /** What is done by itself, on one replica. */
  readonly jobs: readonly Job[];
  /** Lets what was taken in reach the database. */
  close(): Promise<void>;
}

/** Creates the services. Nothing runs yet. */
export function createServices(parts: ServicesParts): Services {
  const { catalog, repository } = parts;
  const tokens = createTokens(parts);
  const ingest = createIngest({ ...parts, isKnown: createKnown(catalog.state) });
  const fleet = createFleet(parts);
  const drift = createDrift(parts);
  const guards = createGuards(parts);
  const { env = {}, otlpUrl, publicUrl } = parts;
  const alerts = createAlerts({
    ...parts,
    ...{ drift, env },
    rollback: (action) => takeBack(catalog, guards, action),
    ...(publicUrl !== undefined && { dashboardUrl: `${publicUrl}/dashboard/` }),
  });
  const measured = {
    ...parts,
    ingest,
    rollouts: () => guards.evidence(),
    drift: () => drift.rows({}, 'training'),
  };
  return {
    tokens,
    ingest,
    endpoints: [
      ...createFleetEndpoints({ fleet, drift }),
      ...createGuardEndpoints({ guards, fleet }),
      ...createCatalogEndpoints({ ...parts, guards }),
      ...createAlertEndpoints({ alerts, repository }),
      ...createAccessEndpoints({ ...parts, tokens }),
    ],
    metrics: createMetricsRoutes(measured),
    jobs: [
      createFoldJob(parts),
      createRetentionJob(parts),
      guards.job,
      ...alerts.jobs,
      ...(otlpUrl === undefined
        ? []
        : [createOtlpJob({ ...measured, url: otlpUrl, headers: headersOf(env) })]),
    ],
    close: () => ingest.close(),
  };
}

/** Takes a version back in every channel that still rolls it out: what everybody has, people take back. */
async function takeBack(
  catalog: Catalog,
  guards: Pick<Guards, 'act'>,
  { model, version, alert }: ActionNotification,
): Promise<void> {
  const { published } = await catalog.state();
  for (const [channel, plans] of Object.entries(published?.channels ?? {})) {
    const isOut = plans.some(
      ({ model: of, cand, state }) =>
        of === model && cand.version === version && state !== 'rolledback' && state !== 'complete',
    );
    if (!isOut) continue;
    await guards.act({ channel, model, action: 'rollback', reason: `Alert ${alert.rule}.` }, 'alerts');
  }
}

/** Headers of OTLP exporters, as OpenTelemetry has them in the environment: `name=value,name=value`, percent-encoded. */
function headersOf(env: Readonly<Record<string, string | undefined>>): Readonly<Record<string, string>> {
  const pairs = (env['OTEL_EXPORTER_OTLP_HEADERS'] ?? '').split(',').flatMap((pair) => {
    const [, name, value] = /^\s*([^=\s]+)\s*=(.*)$/.exec(pair) ?? [];
    return name === undefined || value === undefined
      ? []
      : [[name, decodeURIComponent(value.trim())] as const];
  });
  return Object.fromEntries(pairs);
}
