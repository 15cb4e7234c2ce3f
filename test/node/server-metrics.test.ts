import { execFileSync, spawnSync } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { createServer, type IncomingHttpHeaders } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, expect, it, onTestFinished } from 'vitest';
import { nodePlatform } from '../../src/platform-node.ts';
import type { DriftRow, RolloutEvidence } from '../../src/server/api/answers.ts';
import { createFoldJob } from '../../src/server/ingest/fold.ts';
import type { MetricsParts } from '../../src/server/metrics/collect.ts';
import { createOtlpJob } from '../../src/server/metrics/otlp.ts';
import { createMetricsRoutes } from '../../src/server/metrics/routes.ts';
import { noon, openIngest, reportOf, timesOf, windowOf } from './server-ingest-fixture.ts';

const hasPromtool = spawnSync('promtool', ['--version']).error === undefined;
if (!hasPromtool) console.log('Skipped: there is no promtool here, so it does not check the metrics.');
const signal = new AbortController().signal;
const hostile = 'v"1\\{x}#<b>';

const rollout = {
  channel: 'prod',
  plan: { id: 'r-1', model: 'digits' },
  stage: 2,
  devices: { exposed: 7, control: 30, silent: 0 },
  guards: [{ guard: 'errors', logEFail: 1.5, logEPass: -0.25 }],
} as unknown as RolloutEvidence;
const drift = {
  ...{ model: 'digits', version: '1.0.0', feature: 'y', kind: 'output', against: 'training' },
  ...{ psi: 0.31, ks: null, js: 0.02, w1: null },
} as unknown as DriftRow;

async function openMetrics() {
  const opened = await openIngest();
  const platform = { ...nodePlatform(), now: () => opened.clock.now };
  const { db, ingest } = opened;
  const parts: MetricsParts = {
    ...{ db, platform, ingest },
    rollouts: () => Promise.resolve([rollout]),
    drift: () => Promise.resolve([drift]),
  };
  const fold = createFoldJob({ db, platform });
  const fill = async (seq: number): Promise<void> => {
    const full = windowOf({
      ...{ n: 10, ok: 7, err: { timeout: 2 }, ex: 9, ch: [6, 4], cold: 1, fatal: 1, act: 1, com: 1 },
      ...{ rej: { slow: 1 }, cost: 2_000_000, g: { cpu: 1500, net: 10 }, fb: { n: 3, ok: 2 } },
      h: { lat: timesOf([0.25, 0.5, 0.5, 90]), queue: timesOf([0.001]), load: timesOf([2]) },
      biz: { sale: [2, 9.5] },
    });
    const few = windowOf({ m: 'few' });
    await ingest.take([
      ...Array.from({ length: 20 }, (_, i) =>
        reportOf(i, seq, [full, { ...full, m: 'other', ver: hostile }]),
      ),
      reportOf(99, seq, [few]),
    ]);
    await fold.run(noon, signal);
    await ingest.flush();
  };
  const routes = createMetricsRoutes(parts);
  const scrape = async (accept = ''): Promise<{ text: string; type: string | null }> => {
    const response = await routes.request('/metrics', { headers: { accept } });
    return { text: await response.text(), type: response.headers.get('content-type') };
  };
  return { ...opened, parts, platform, fill, scrape };
}

/** Value of a sample by its whole name. */
const valueOf = (text: string, sample: string): number | undefined => {
  const line = text.split('\n').find((one) => one.startsWith(`${sample} `));
  return line === undefined ? undefined : Number(line.slice(sample.length + 1));
};

describe('/metrics', () => {
  it('counts what devices count, and goes on counting after a restart', async () => {
    const { fill, scrape } = await openMetrics();
    await fill(0);
    await fill(1);
    const { text } = await scrape();
    const labels = 'model="digits",version="1.0.0"';
    const value = (name: string, more = ''): number | undefined => valueOf(text, `${name}{${labels}${more}}`);
    expect(value('inlay_devices')).toBe(20);
    expect(value('inlay_inferences_total', ',result="ok",error_type=""')).toBe(280);
    expect(value('inlay_inferences_total', ',result="error",error_type="timeout"')).toBe(80);
    expect(value('inlay_inferences_total', ',result="error",error_type=""')).toBe(40);
    expect(value('inlay_inference_duration_seconds_bucket', ',phase="total",le="0.25"')).toBe(40);
    expect(value('inlay_inference_duration_seconds_bucket', ',phase="total",le="0.5"')).toBe(120);
    expect(value('inlay_inference_duration_seconds_bucket', ',phase="total",le="64.0"')).toBe(120);
    expect(value('inlay_inference_duration_seconds_bucket', ',phase="total",le="+Inf"')).toBe(160);
    expect(value('inlay_inference_duration_seconds_count', ',phase="total"')).toBe(160);
    expect(value('inlay_cache_requests_total', ',result="hit"')).toBe(240);
    expect(value('inlay_cpu_seconds_total')).toBe(60);
    expect(value('inlay_cost_usd_total')).toBe(80);
    expect(value('inlay_feedback_total', ',outcome="incorrect"')).toBe(40);
    expect(value('inlay_business_events_total', ',name="sale"')).toBe(80);
    expect(text).toContain(
      'inlay_guard_log_evalue{channel="prod",model="digits",rollout="r-1",stage="2",guard="errors",side="fail"} 1.5',
    );
    expect(text).toContain('kind="output",against="training",method="psi"} 0.31');
    expect(valueOf(text, 'inlay_telemetry_reports_total{outcome="counted"}')).toBe(42);
    expect(valueOf(text, 'inlay_telemetry_lost_reports_total')).toBe(0);
    expect(text).not.toContain('"few"');
  });

  it('is in the formats that scrapers ask for', async () => {
    const { fill, scrape } = await openMetrics();
    await fill(0);
    const plain = await scrape('*/*');
    expect(plain.type).toBe('text/plain; version=0.0.4; charset=utf-8');
    const open = await scrape('application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5');
    expect(open.type).toBe('application/openmetrics-text; version=1.0.0; charset=utf-8');
    expect(open.text.endsWith('# EOF\n')).toBe(true);
    expect(open.text).toContain('# TYPE inlay_inferences counter\n');
    expect(plain.text).toContain('# TYPE inlay_inferences_total counter\n');
    expect(plain.text).toContain('version="v\\"1\\\\{x}#<b>"');
  });

  it.skipIf(!hasPromtool)('is what promtool calls correct', async () => {
    const { fill, scrape } = await openMetrics();
    await fill(0);
    const { text } = await scrape();
    const output = execFileSync('promtool', ['check', 'metrics'], {
      input: text,
      encoding: 'utf8',
      stdio: 'pipe',
    });
    expect(output).toBe('');
  });

  it('has every metric that the dashboard for Grafana draws', async () => {
    const { fill, scrape } = await openMetrics();
    await fill(0);
    const { text } = await scrape();
    const file = new URL('../../docs/grafana/inlay.json', import.meta.url);
    const dashboard = await readFile(file, 'utf8');
    const drawn = new Set(dashboard.match(/\b(?:inlay|process)_[a-z_]+/g));
    expect(drawn.size).toBeGreaterThan(10);
    for (const name of drawn) expect(text).toMatch(new RegExp(`^${name}(?:\\{| )`, 'm'));
  });
});

interface Received {
  readonly url: string | undefined;
  readonly headers: IncomingHttpHeaders;
  readonly body: { resourceMetrics: { scopeMetrics: { metrics: Metric[] }[] }[] };
}
interface Metric {
  readonly name: string;
  readonly unit: string;
  readonly sum?: { aggregationTemporality: number; isMonotonic: boolean; dataPoints: Point[] };
  readonly gauge?: { dataPoints: Point[] };
  readonly exponentialHistogram?: { aggregationTemporality: number; dataPoints: Point[] };
}
interface Point {
  readonly startTimeUnixNano: string;
  readonly timeUnixNano: string;
  readonly asInt?: string;
  readonly count?: string;
  readonly scale?: number;
  readonly zeroCount?: string;
  readonly positive?: { offset: number; bucketCounts: string[] };
  readonly attributes: { key: string; value: { stringValue: string } }[];
}

/** A receiver of OTLP that answers as it is told. */
async function startReceiver(answers: { status: number; headers?: Record<string, string>; body?: string }[]) {
  const received: Received[] = [];
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const body = JSON.parse(Buffer.concat(chunks).toString()) as Received['body'];
      received.push({ url: request.url, headers: request.headers, body });
      const { status, headers = {}, body: text = '{}' } = answers.shift() ?? { status: 200 };
      response.writeHead(status, headers).end(text);
    });
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return { received, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` };
}

const metricsOf = ({ body }: Received): Metric[] =>
  body.resourceMetrics.flatMap(({ scopeMetrics }) => scopeMetrics.flatMap(({ metrics }) => metrics));

describe('the push over OTLP', () => {
  it('sends cumulative sums and exponential histograms since one beginning', async () => {
    const { fill, parts, platform, errors } = await openMetrics();
    const { received, url } = await startReceiver([]);
    const push = () =>
      createOtlpJob({ ...parts, platform, url, headers: { 'x-key': 'k' }, onError: (e) => errors.push(e) });
    await fill(0);
    await push().run(noon, signal);
    await fill(1);
    await push().run(noon + 60_000, signal);
    expect(received.map((request) => [request.url, request.headers['x-key']])).toEqual([
      ['/v1/metrics', 'k'],
      ['/v1/metrics', 'k'],
    ]);
    const [first, second] = received.map(
      (request) => new Map(metricsOf(request).map((metric) => [metric.name, metric])),
    );
    const points = (metrics: typeof first, name: string): Point[] => {
      const metric = metrics?.get(name);
      const body = metric?.sum ?? metric?.exponentialHistogram;
      expect(body?.aggregationTemporality).toBe(2);
      return body?.dataPoints ?? [];
    };
    const okOf = (metrics: typeof first) => points(metrics, 'inlay.inference.count')[0];
    expect([okOf(first)?.asInt, okOf(second)?.asInt]).toEqual(['140', '280']);
    expect(okOf(first)?.startTimeUnixNano).toBe(okOf(second)?.startTimeUnixNano);
    expect(okOf(first)?.startTimeUnixNano).toBe(`${noon - 12 * 3_600_000}000000`);
    expect(okOf(first)?.timeUnixNano).toBe(`${noon}000000`);
    for (const point of points(second, 'inlay.inference.duration')) {
      const counts = point.positive?.bucketCounts.map(Number) ?? [];
      expect(counts.length).toBeLessThanOrEqual(160);
      expect(counts.reduce((sum, n) => sum + n, 0) + Number(point.zeroCount)).toBe(Number(point.count));
      // Half a second is the upper edge of a bucket at every scale.
      const phase = point.attributes.find(({ key }) => key === 'inlay.phase')?.value.stringValue;
      if (phase !== 'total') continue;
      const scale = point.scale ?? 0;
      expect(counts[-(2 ** scale) - 1 - (point.positive?.offset ?? 0)]).toBe(80);
    }
    expect(errors).toEqual([]);
  });

  it('waits as long as the receiver asks, and says what it does not take', async () => {
    const { parts, platform } = await openMetrics();
    const { received, url } = await startReceiver([
      { status: 503, headers: { 'retry-after': '120' } },
      { status: 200, body: '{"partialSuccess":{"rejectedDataPoints":"3","errorMessage":"too many"}}' },
      { status: 400 },
    ]);
    const problems: unknown[] = [];
    const job = createOtlpJob({
      ...parts,
      platform,
      url: `${url}/v1/metrics`,
      onError: (e) => problems.push(e),
    });
    await job.run(noon, signal);
    await job.run(noon + 60_000, signal);
    expect([received.length, problems.length]).toEqual([1, 0]);
    await job.run(noon + 120_000, signal);
    expect(problems.map(String)).toEqual([expect.stringContaining('3 points refused: too many')]);
    await job.run(noon + 180_000, signal);
    expect(problems.map(String).at(-1)).toContain('status 400');
  });

  it('fails with a code where nobody listens', async () => {
    const { parts, platform } = await openMetrics();
    const job = createOtlpJob({ ...parts, platform, url: 'http://127.0.0.1:1', onError: () => undefined });
    await expect(job.run(noon, signal)).rejects.toMatchObject({ code: 'ERR_INLAY_NETWORK' });
  });
});
