#!/usr/bin/env node
/**
 * Reads digits over HTTP.
 *
 *   node examples/node-service/server.mjs [--port 8080] [--model FILE] [--max-waiting 1000] [--deadline-ms 100]
 */
import { createInlay } from 'inlay';
import { startService } from './service.mjs';

await startService(async ({ model: path, maxWaiting, deadlineMs, threads }) => {
  const inlay = createInlay({ device: 'cpu', intraOpThreads: threads });
  const model = await inlay.load(path, { maxWaiting, ...(deadlineMs !== undefined && { deadlineMs }) });
  return {
    async classify(image, call) {
      const { logits } = await model.run({ image }, call);
      return logits.data;
    },
    metrics: () => inlay.metrics(),
    close: () => inlay.close(),
  };
});
