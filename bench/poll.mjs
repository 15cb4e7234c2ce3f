import { createHash, webcrypto } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer as createProxy } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  addRelease,
  createRoot,
  createTargets,
  expiresIn,
  generateKeyPair,
  openSigner,
  signMetadata,
  toKeyFile,
} from 'inlay/publish';
import { startServer } from 'inlay/server';
import { nodePlatform } from '../build/platform-node.js';
import { figure } from './report.mjs';

const MODELS = ['digits', 'faces', 'speech', 'sound', 'text'];
const POLLS_A_DAY = 24;
/** The server signs the timestamp every six hours, so that often a poll brings something. */
const CHANGES_A_DAY = 4;

/** Bytes of a poll on a real server, both ways, without TLS: what nothing new costs, what a change costs, and a day. */
export async function run() {
  const folder = await mkdtemp(join(tmpdir(), 'inlay-bench-poll-'));
  const server = await startServer({ port: 0, dataDir: folder });
  try {
    await fill(server);
    const zipped = await rawPoll(server.url, { encoding: 'gzip' });
    // A device sends the tag of what it has, also where there is something newer.
    const changed = await rawPoll(server.url, { encoding: 'br', etag: zipped.etag });
    const unchanged = await rawPoll(server.url, { encoding: 'br', etag: changed.etag });
    if (changed.status !== 200 || unchanged.status !== 304)
      throw new Error('The server does not revalidate.');
    const byFetch = await fetchPolls(server.url);
    const day =
      (POLLS_A_DAY - CHANGES_A_DAY) * (unchanged.sent + unchanged.received) +
      CHANGES_A_DAY * (changed.sent + changed.received);
    const fetchDay = (POLLS_A_DAY - CHANGES_A_DAY) * byFetch.unchanged + CHANGES_A_DAY * byFetch.changed;
    const label = `${MODELS.length} models`;
    const add = (name, metric, value, rest = {}) =>
      figure({ bench: 'poll', case: name, metric, value, unit: 'B', ...rest });
    return [
      add('nothing new, bare request', 'both ways', unchanged.sent + unchanged.received, { target: 350 }),
      add('nothing new, fetch of Node', 'both ways', byFetch.unchanged),
      add(`change, ${label}`, 'body, gzip', zipped.bodyBytes, { target: 1500 }),
      add(`change, ${label}`, 'body, br', changed.bodyBytes),
      add(`change, ${label}`, 'body, plain', changed.plainBytes),
      add(`change, ${label}, bare request`, 'both ways', changed.sent + changed.received),
      add(`change, ${label}, fetch of Node`, 'both ways', byFetch.changed),
      add('a day, a poll an hour, bare request', 'both ways', day, { target: 11_900 }),
      add('a day, a poll an hour, fetch of Node', 'both ways', fetchDay),
    ];
  } finally {
    await server.close();
    await rm(folder, { recursive: true, force: true });
  }
}

/** Publishes two releases of each model, the second on its way. */
async function fill(server) {
  const platform = nodePlatform();
  const { onlineKey } = server;
  const newSigner = async () =>
    openSigner({ subtle: webcrypto.subtle, platform }, toKeyFile(await generateKeyPair(webcrypto.subtle)));
  const [rootSigner, signer] = [await newSigner(), await newSigner()];
  const put = async (path, body) => {
    const response = await fetch(`${server.url}/v1/admin/${path}`, {
      method: 'PUT',
      headers: { authorization: `Bearer ${server.token}` },
      body,
    });
    if (!response.ok) throw new Error(`The server answered ${response.status}: ${await response.text()}`);
  };
  const expires = expiresIn(platform.now(), 180);
  const root = createRoot({ rootKeys: [rootSigner], targetsKeys: [signer], onlineKey, expires });
  await put('root', await signMetadata(root, [rootSigner]));
  let targets = createTargets({ onlineKey, expires });
  await put('targets', await signMetadata(targets, [signer]));
  for (const model of MODELS) {
    for (const version of ['1.0.0', '1.1.0']) {
      const content = Buffer.from(`${model} ${version}`);
      const sha256 = createHash('sha256').update(content).digest('hex');
      await put(`blobs/${sha256}`, content);
      const release = { model, version, file: 'model.onnx', length: content.length, sha256, expires };
      ({ targets } = addRelease(targets, release));
    }
  }
  // In one step: each installation has the version after the last.
  await put('targets', await signMetadata({ ...targets, version: 2 }, [signer]));
  for (const [i, model] of MODELS.entries()) {
    await put(`rollouts/stable/${model}`, JSON.stringify({ version: '1.0.0', percent: 100 }));
    await put(`rollouts/stable/${model}`, JSON.stringify({ version: '1.1.0', percent: 10 + i }));
  }
}

/** Polls with the headers that the protocol needs and no others. */
async function rawPoll(url, { encoding, etag }) {
  const { host, hostname, port } = new URL(url);
  const condition = etag === undefined ? '' : `If-None-Match: ${etag}\r\n`;
  const request = `GET /v1/tip?root=1 HTTP/1.1\r\nHost: ${host}\r\nAccept-Encoding: ${encoding}\r\n${condition}\r\n`;
  const socket = connect(Number(port), hostname);
  socket.setNoDelay().write(request);
  let received = Buffer.alloc(0);
  let head = '';
  let length = 0;
  for await (const chunk of socket) {
    received = Buffer.concat([received, chunk]);
    const end = received.indexOf('\r\n\r\n');
    if (end < 0) continue;
    head = received.subarray(0, end).toString('latin1');
    length = Number(/^content-length: (\d+)$/im.exec(head)?.[1] ?? 0);
    if (received.length >= end + 4 + length) break;
  }
  socket.destroy();
  const plain = await (
    await fetch(`${url}/v1/tip?root=1`, { headers: { 'accept-encoding': 'identity' } })
  ).text();
  return {
    status: Number(head.split(' ')[1]),
    etag: /^etag: (.+)$/im.exec(head)?.[1],
    sent: request.length,
    received: received.length,
    bodyBytes: length,
    plainBytes: Buffer.byteLength(plain),
  };
}

/** Polls twice with the runtime's own fetch, through a proxy that counts. */
async function fetchPolls(url) {
  let bytes = 0;
  const proxy = createProxy((client) => {
    const upstream = connect(Number(new URL(url).port), '127.0.0.1');
    for (const [from, to] of [
      [client, upstream],
      [upstream, client],
    ]) {
      from.on('data', (chunk) => {
        bytes += chunk.length;
      });
      from.pipe(to);
      from.on('error', () => to.destroy());
    }
  });
  await new Promise((done) => {
    proxy.listen(0, '127.0.0.1', done);
  });
  const poll = async (headers) => {
    const before = bytes;
    const response = await fetch(`http://127.0.0.1:${proxy.address().port}/v1/tip?root=1`, { headers });
    await response.arrayBuffer();
    return { bytes: bytes - before, etag: response.headers.get('etag') };
  };
  const changed = await poll({});
  const unchanged = await poll({ 'if-none-match': changed.etag });
  proxy.close();
  return { changed: changed.bytes, unchanged: unchanged.bytes };
}
