import { expect, it } from 'vitest';
import { createReportRoutes } from '../../src/server/ingest/routes.ts';
import { callOften, createWorld, made, startDevice } from '../core/engine/device.ts';
import { openIngest } from './server-ingest-fixture.ts';

const minute = 60_000;

it('what a device counts is what the server has: its stage, its past, and its windows', async () => {
  const world = await createWorld();
  const { db, ingest, clock, errors } = await openIngest();
  const routes = createReportRoutes(ingest);
  const device = startDevice(world, {
    telemetry: { consent: 'full' },
    fetch: async (url, init) => {
      const path = url.replace('https://sync.test/v1', '');
      if (!['/reports', '/forget'].includes(path)) return world.server.fetch(url, init);
      clock.now = device.platform.now();
      return routes.request(path, init);
    },
  });
  await world.ship('1.0.0', made(2));
  const model = await device.load();
  await callOften(model, 130);
  await device.pass(2 * minute);
  await world.ship('1.1.0', made(3), { state: 'ramp', bp: 10_000, stage: 1 });
  await device.update();
  await callOften(model, 25);
  await device.pass(2 * minute);
  await device.inlay.telemetry.flush();
  await ingest.flush();
  expect(await device.inlay.telemetry.state()).toMatchObject({ queued: 0, dropped: 0, lastError: undefined });

  const devices = await db.selectFrom('stage_device').selectAll().execute();
  expect(devices).toMatchObject([
    { stage: 1, arm: 't', n: 25, errors: 0, activations: 1, rejections: 0, base_n: 130, base_errors: 0 },
  ]);
  const deltas = await db.selectFrom('delta').selectAll().execute();
  expect(deltas.reduce((sum, { body }) => sum + (JSON.parse(body) as { n: number }).n, 0)).toBe(155);

  const { device: dev } = (await device.inlay.telemetry.state()) ?? {};
  await device.inlay.telemetry.setConsent('unset');
  const left = await db
    .selectFrom('stage_device')
    .select('dev')
    .where('dev', '=', dev ?? '')
    .execute();
  expect([left, errors]).toEqual([[], []]);
  await device.inlay.close();
});
