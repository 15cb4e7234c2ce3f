#!/usr/bin/env node
/**
 * The same service as one would write it by hand: each request is a run of its own, on the thread that answers.
 *
 *   node examples/node-service/naive.mjs [--port 8080] [--model FILE] [--threads 1]
 */
import { fileURLToPath } from 'node:url';
import * as ort from 'onnxruntime-node';
import { startService } from './service.mjs';

await startService(async ({ model, threads }) => {
  const path = model.startsWith('file:') ? fileURLToPath(model) : model;
  const session = await ort.InferenceSession.create(path, { intraOpNumThreads: threads });
  return {
    async classify(image) {
      const { logits } = await session.run({ image: new ort.Tensor('float32', image, [1, 1, 28, 28]) });
      return logits.data;
    },
    metrics: () => '',
    close: () => session.release(),
  };
});
