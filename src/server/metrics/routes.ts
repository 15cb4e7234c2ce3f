import { Hono } from 'hono';
import { collect, type MetricsParts } from './collect.ts';
import { familiesOf } from './families.ts';
import { contentTypes, writeMetrics } from './family.ts';

/**
 * Creates the route `/metrics`. Who asks for OpenMetrics gets that, anybody else the text format of Prometheus. Counters are
 * sums since the first report, so they go on after a restart, and are the same on every replica; those of the ingest are of
 * one process.
 */
export function createMetricsRoutes(parts: MetricsParts): Hono {
  const routes = new Hono();
  routes.get('/metrics', async (c) => {
    const format = /application\/openmetrics-text/.test(c.req.header('accept') ?? '')
      ? 'openmetrics'
      : 'prometheus';
    const text = writeMetrics(familiesOf(await collect(parts)), format);
    c.header('Cache-Control', 'no-store');
    c.header('Vary', 'Accept');
    return c.body(text, 200, { 'Content-Type': contentTypes[format] });
  });
  return routes;
}
