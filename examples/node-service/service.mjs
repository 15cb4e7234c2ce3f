import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import Fastify from 'fastify';
import { isInlayError } from 'inlay';

const PIXELS = 784;
const pixels = { type: 'array', items: { type: 'number' }, minItems: PIXELS, maxItems: PIXELS };
const deadline = { type: 'number', exclusiveMinimum: 0 };
const schema = {
  body: {
    content: {
      'application/json': { schema: { type: 'object', required: ['pixels'], properties: { pixels } } },
      'application/octet-stream': { schema: {} },
    },
  },
  querystring: { type: 'object', properties: { deadlineMs: deadline } },
  headers: { type: 'object', properties: { 'x-deadline-ms': deadline } },
};

/**
 * What answers the requests.
 * @typedef {object} Classifier
 * @property {(image: Float32Array, call: { deadlineMs?: number, signal: AbortSignal }) => Promise<Float32Array>} classify
 * `image`: float32 [1, 1, 28, 28], ink 1 and paper 0. Gives ten scores.
 * @property {() => string} metrics Prometheus text.
 * @property {() => Promise<void>} close
 */

/**
 * Starts a service from the command line's options. It listens at once, is ready when its classifier is, and ends on
 * SIGTERM: first it says that it is no longer ready, then it drains, then it closes.
 * @param {(options: { model: string, maxWaiting: number, deadlineMs?: number, threads: number }) => Promise<Classifier>} open
 */
export async function startService(open) {
  const options = readOptions();
  /** @type {Classifier | undefined} */
  let classifier;
  let isLeaving = false;
  const app = Fastify({ return503OnClosing: false });

  // A connection that stays open would bring requests to a service that goes away.
  app.addHook('onSend', async (_request, reply) => {
    if (isLeaving) reply.header('connection', 'close');
  });
  app.removeContentTypeParser('text/plain');
  app.addContentTypeParser('application/octet-stream', { parseAs: 'buffer' }, async (_request, body) => body);
  app.setErrorHandler((error, _request, reply) => {
    const { status, retryAfterSeconds } = verdictOf(error);
    if (retryAfterSeconds !== undefined) reply.header('retry-after', retryAfterSeconds);
    return reply.code(status).send({ code: error.code, message: error.message });
  });

  app.get('/healthz', (_request, reply) => {
    const isReady = classifier !== undefined && !isLeaving;
    return reply.code(isReady ? 200 : 503).send({ isReady });
  });
  app.get('/metrics', (_request, reply) =>
    reply.type('text/plain; version=0.0.4').send(classifier?.metrics() ?? ''),
  );
  app.post('/classify', { schema }, async (request, reply) => {
    if (classifier === undefined) {
      return reply.code(503).header('retry-after', 1).send({ message: 'The model is not loaded yet.' });
    }
    const image = imageOf(request.body);
    if (image === undefined) {
      return reply.code(400).send({ message: `An image has ${PIXELS} float32 numbers of 4 bytes.` });
    }
    const deadlineMs = request.headers['x-deadline-ms'] ?? request.query.deadlineMs;
    const signal = signalOf(reply.raw);
    const scores = await classifier.classify(image, { signal, ...(deadlineMs && { deadlineMs }) });
    return { digit: scores.indexOf(Math.max(...scores)), scores: Array.from(scores) };
  });

  const url = await app.listen({ port: options.port, host: '127.0.0.1' });
  const ended = new Promise((resolve) => {
    process.once('SIGTERM', resolve).once('SIGINT', resolve);
  });
  classifier = await open(options);
  console.log(JSON.stringify({ url }));
  await ended;
  isLeaving = true;
  await sleep(options.drainMs);
  await app.close();
  await classifier.close();
}

/** Aborts when the client goes away before it has its answer. A request closes as soon as its body is read: too early. */
function signalOf(response) {
  const controller = new AbortController();
  response.once('close', () => {
    if (!response.writableFinished) controller.abort();
  });
  return controller.signal;
}

/** What an error is in HTTP. */
function verdictOf(error) {
  if (!isInlayError(error)) return { status: error.statusCode ?? 500 };
  switch (error.code) {
    case 'ERR_INLAY_OVERLOADED':
    case 'ERR_INLAY_DEADLINE':
      return { status: 503, retryAfterSeconds: Math.ceil((error.details.retryAfterMs ?? 1000) / 1000) };
    case 'ERR_INLAY_CLOSED':
      return { status: 503, retryAfterSeconds: 1 };
    default:
      return { status: error.name === 'InputError' ? 400 : 500 };
  }
}

function imageOf(body) {
  if (!Buffer.isBuffer(body)) return Float32Array.from(body.pixels);
  if (body.length !== PIXELS * Float32Array.BYTES_PER_ELEMENT) return undefined;
  // The bytes of a request need not begin where a float may.
  return new Float32Array(Uint8Array.from(body).buffer);
}

function readOptions() {
  const { values } = parseArgs({
    options: {
      model: { type: 'string', default: new URL('../digits/digits-1.1.0.onnx', import.meta.url).href },
      port: { type: 'string', default: '8080' },
      'max-waiting': { type: 'string', default: '1000' },
      'deadline-ms': { type: 'string' },
      'drain-ms': { type: 'string', default: '1000' },
      threads: { type: 'string', default: '1' },
    },
  });
  return {
    model: values.model,
    port: Number(values.port),
    maxWaiting: Number(values['max-waiting']),
    drainMs: Number(values['drain-ms']),
    threads: Number(values.threads),
    ...(values['deadline-ms'] !== undefined && { deadlineMs: Number(values['deadline-ms']) }),
  };
}
