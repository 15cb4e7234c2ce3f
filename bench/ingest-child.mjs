// The part of a server that takes reports in, as `startServer` puts it together: listener, routes, ingest, fold job.
// Usage: node bench/ingest-child.mjs DATABASE batch|single
import { Hono } from 'hono';
import { nodePlatform } from '../build/platform-node.js';
import { openDatabase } from '../build/server/db/open.js';
import { createFoldJob } from '../build/server/ingest/fold.js';
import { createIngest } from '../build/server/ingest/ingest.js';
import { createReportRoutes } from '../build/server/ingest/routes.js';
import { listen } from '../build/server/listen.js';

const [target, mode] = process.argv.slice(2);
const platform = nodePlatform();
const onError = (error) => {
  console.error(error);
};
const { db } = await openDatabase(target);
const single = { batchReports: 1, batchMs: 0, maxWaitMs: 60_000 };
const ingest = createIngest({
  db,
  platform,
  onError,
  isKnown: () => true,
  ...(mode === 'single' && single),
});
const app = new Hono().route('/v1', createReportRoutes(ingest));
app.onError((error, c) => c.json({ message: error.message }, error.code === 'ERR_INLAY_BUSY' ? 429 : 500));
const { url, close } = await listen(app, { host: '127.0.0.1', port: 0, platform, onError });
const fold = createFoldJob({ db, platform });
const folding = new AbortController();
let folded = Promise.resolve();
const timer = setInterval(() => {
  folded = folded.then(() => fold.run(Date.now(), folding.signal)).catch(onError);
}, fold.everyMs);

process.on('message', (message) => {
  const { user, system } = process.cpuUsage();
  if (message === 'usage') process.send({ cpuMs: (user + system) / 1000 });
  else void end();
});

async function end() {
  clearInterval(timer);
  await close();
  await ingest.close();
  await folded;
  const bodies = [
    ...(await db.selectFrom('roll').select('body').where('res', '=', 300).execute()),
    ...(await db.selectFrom('delta').select('body').execute()),
  ].map(({ body }) => JSON.parse(body));
  const bins = (counts) =>
    Object.values(counts ?? {})
      .flatMap((features) => Object.values(features).flat())
      .reduce((sum, n) => sum + n, 0);
  const sum = (read) => bodies.reduce((total, body) => total + read(body), 0);
  process.send({
    calls: sum(({ n }) => n),
    errors: sum(({ n, ok }) => n - ok),
    times: sum(({ h }) => (h?.lat?.b ?? []).reduce((all, n, i) => (i % 2 === 1 ? all + n : all), 0)),
    bins: sum(({ p, x }) => bins(p) + bins(x)),
  });
  await db.destroy();
  process.disconnect();
}

process.send({ url });
