// The part of a server that takes reports in, with a fold job that never rests, to be killed at any moment.
import { Hono } from 'hono';
import { nodePlatform } from '../../build/platform-node.js';
import { openDatabase } from '../../build/server/db/open.js';
import { createFoldJob } from '../../build/server/ingest/fold.js';
import { createIngest } from '../../build/server/ingest/ingest.js';
import { createReportRoutes } from '../../build/server/ingest/routes.js';
import { listen } from '../../build/server/listen.js';

const platform = nodePlatform();
const onError = (error) => console.error(error);
const { db } = await openDatabase(process.argv[2]);
const ingest = createIngest({ db, platform, isKnown: () => true, onError, batchMs: 5 });
const app = new Hono().route('/v1', createReportRoutes(ingest));
const { url } = await listen(app, { host: '127.0.0.1', port: 0, platform, onError });
process.send(url);
const fold = createFoldJob({ db, platform });
for (;;) {
  await fold.run(Date.now(), new AbortController().signal).catch(onError);
  await new Promise((done) => setTimeout(done, 5));
}
