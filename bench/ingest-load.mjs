import { createHash } from 'node:crypto';
import { connect } from 'node:net';
import { gzipSync } from 'node:zlib';
import { createHistogram } from '../build/telemetry/histogram.js';

const WINDOW_S = 300;
const FEATURES = 8;
const CALLS = 150;

/** Reports as a fleet sends them: two versions of a model over five minutes, 8 features, one gzipped request each. */
export function createReports(count, devices, nowMs) {
  const times = Array.from({ length: 64 }, (_, k) => {
    const histogram = createHistogram();
    for (let i = 0; i < CALLS; i += 1) histogram.record(0.03 * Math.exp(0.35 * gaussian(k * CALLS + i)));
    return histogram.snapshot();
  });
  const truth = { calls: 0, errors: 0, times: 0, bins: 0 };
  const last = Math.floor(nowMs / 1000 / WINDOW_S) * WINDOW_S - WINDOW_S;
  const windowOf = (i, ver, arm, t) => {
    const errors = i % 17 === 0 ? 1 : 0;
    const vectors = vectorsOf(i);
    truth.calls += CALLS;
    truth.errors += errors;
    truth.times += CALLS;
    truth.bins += vectors.total;
    return {
      ...{ t, d: WINDOW_S, m: 'sentiment-small', ver, ro: 'r-7f3a', st: 2, arm, prof: '0123456789abcdef' },
      ...{ n: CALLS, ok: CALLS - errors, ...(errors > 0 && { err: { timeout: errors } }), cold: 1 },
      ...{ ch: [90, 60], ex: 60, h: { lat: times[i % 64], queue: times[(i * 7) % 64] } },
      ...{ g: { mem: [183_500_800, 171_966_464], cpu: 4650 }, cost: 1800, p: vectors.p, x: vectors.x },
      ...{ bl: { n: 400, e: 2, p95: 0.06, mem: 170_000_000 } },
    };
  };
  const reports = Array.from({ length: count }, (_, i) => {
    const device = i % devices;
    const arm = device % 2 === 0 ? 't' : 'c';
    const t = last - WINDOW_S * (Math.floor(i / devices) % 2);
    const report = {
      ...{ v: 1, app: 'prod', dev: nameOf('device', device, 12), epoch: nameOf('epoch', device, 8) },
      ...{ seq: Math.floor(i / devices), sent: nowMs, sdk: 'inlay/0.3.0', rt: 'web', be: 'webgpu' },
      ...{ cls: device % 12, consent: 'full' },
      win: [windowOf(i, '1.4.0', arm, t), windowOf(i + 1, '1.5.0', arm, t)],
    };
    const text = JSON.stringify({ sent: nowMs, reports: [report] });
    return { body: gzipSync(text), plainBytes: text.length };
  });
  return { reports, truth };
}

function vectorsOf(i) {
  const vector = (bins) => Array.from({ length: bins }, (_, k) => (i * 7 + k * 13) % 23);
  const p = { y: [...vector(3), 0, 0], conf: [...vector(10), 0, 0] };
  const x = Object.fromEntries(
    Array.from({ length: FEATURES }, (_, k) => [`feature${k}`, [...vector(10), 0, 0]]),
  );
  const all = [...Object.values(p), ...Object.values(x)].flat();
  return { p, x, total: all.reduce((sum, n) => sum + n, 0) };
}

function nameOf(kind, index, bytes) {
  return createHash('sha256').update(`${kind} ${index}`).digest().subarray(0, bytes).toString('base64url');
}

/** Box-Muller over a fixed sequence. */
function gaussian(i) {
  const u = ((i * 2_654_435_761) % 4_294_967_291) / 4_294_967_291;
  const v = ((i * 40_503 + 12_345) % 65_521) / 65_521;
  return Math.sqrt(-2 * Math.log(u + 1e-9)) * Math.cos(2 * Math.PI * v);
}

/**
 * Sends requests over connections that are kept, each when its time has come or, without a rate, as soon as a connection is
 * free. What is answered with 429 is sent again.
 * @returns latencies from the time at which each should have been sent, milliseconds, and the seconds that it took.
 */
export async function send(url, bodies, { connections, rate }) {
  const { hostname, port, host } = new URL(url);
  const latencies = [];
  let next = 0;
  let busy = 0;
  const began = performance.now();
  const dueOf = (i) => (rate === undefined ? performance.now() : began + (i * 1000) / rate);
  await Promise.all(
    Array.from({ length: connections }, async () => {
      const socket = await open(hostname, port);
      for (let i = next++; i < bodies.length; i = next++) {
        const due = dueOf(i);
        const early = due - performance.now();
        if (early > 1) await new Promise((done) => setTimeout(done, early));
        for (;;) {
          const status = await socket.post(host, bodies[i]);
          if (status === 200) break;
          if (status !== 429) throw new Error(`The server answers ${status}.`);
          busy += 1;
          await new Promise((done) => setTimeout(done, 500));
        }
        latencies.push(performance.now() - due);
      }
      socket.close();
    }),
  );
  return { latencies, seconds: (performance.now() - began) / 1000, busy };
}

/** A connection that carries one request at a time. */
function open(hostname, port) {
  return new Promise((done, fail) => {
    const socket = connect(Number(port), hostname);
    let answer = () => {};
    let text = '';
    socket.setNoDelay().setEncoding('latin1');
    socket.once('error', fail);
    socket.on('data', (chunk) => {
      text += chunk;
      const end = text.indexOf('\r\n\r\n');
      if (end < 0) return;
      const length = Number(/^content-length: (\d+)$/im.exec(text.slice(0, end))?.[1] ?? Number.NaN);
      const isWhole = Number.isNaN(length) ? text.endsWith('0\r\n\r\n') : text.length >= end + 4 + length;
      if (!isWhole) return;
      const status = Number(text.slice(9, 12));
      text = '';
      answer(status);
    });
    const post = (host, body) =>
      new Promise((resolve) => {
        answer = resolve;
        socket.cork();
        socket.write(
          `POST /v1/reports HTTP/1.1\r\nHost: ${host}\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: ${body.length}\r\n\r\n`,
        );
        socket.write(body);
        socket.uncork();
      });
    socket.once('connect', () => done({ post, close: () => socket.destroy() }));
  });
}
