import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { extname, join, normalize } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const TYPES = {
  '.html': 'text/html',
  '.js': 'text/javascript',
  '.wasm': 'application/wasm',
  '.onnx': 'application/octet-stream',
};
const SLICE = 64 * 1024;

/**
 * Serves a built page and, below `/v1`, a sync server, over a line of some speed. Everything is one origin, isolated, so
 * that the page has a clock of 5 µs.
 * @param {{ folder: string, files?: Record<string, string>, sync?: string, line?: { bytesPerMs: number, delayMs: number } }}
 *   options `files` by path; `sync` is the server's URL. Without `line`, it is as fast as it gets.
 */
export async function startSite({ folder, files = {}, sync, line }) {
  const sent = { model: 0, other: 0 };
  /** When the line is free again: everything shares it. */
  let freeAt = 0;
  const send = async (response, bytes, kind) => {
    for (let from = 0; from < bytes.length; from += SLICE) {
      const slice = bytes.subarray(from, from + SLICE);
      sent[kind] += slice.length;
      if (line !== undefined) {
        freeAt = Math.max(freeAt, performance.now()) + slice.length / line.bytesPerMs;
        await sleep(Math.max(0, freeAt - performance.now()));
      }
      response.write(slice);
    }
    response.end();
  };
  const answer = async (request, response) => {
    if (line !== undefined) await sleep(line.delayMs);
    const { pathname } = new URL(request.url, 'http://site');
    if (pathname.startsWith('/v1/') && sync !== undefined) return forward(request, response, pathname);
    const path = files[pathname] ?? join(folder, normalize(pathname === '/' ? '/index.html' : pathname));
    const body = await readFile(path).catch(() => undefined);
    response.writeHead(body === undefined ? 404 : 200, {
      'content-type': TYPES[extname(path)] ?? 'application/octet-stream',
      'cache-control': pathname.startsWith('/assets/') ? 'public, max-age=31536000, immutable' : 'no-cache',
      'cross-origin-opener-policy': 'same-origin',
      'cross-origin-embedder-policy': 'require-corp',
    });
    return send(response, body ?? new Uint8Array(0), pathname.endsWith('.onnx') ? 'model' : 'other');
  };
  const forward = async ({ url, headers }, response, pathname) => {
    const { host: _, connection: __, ...rest } = headers;
    const reply = await fetch(new URL(url, sync), { headers: { ...rest, 'accept-encoding': 'identity' } });
    response.writeHead(reply.status, Object.fromEntries(reply.headers));
    const kind = pathname.startsWith('/v1/targets/') ? 'model' : 'other';
    return send(response, new Uint8Array(await reply.arrayBuffer()), kind);
  };
  const server = createServer((request, response) => {
    answer(request, response).catch((error) => response.destroy(error));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${server.address().port}/`,
    /** Bytes of bodies that were sent since the last time. */
    take() {
      const taken = { ...sent };
      sent.model = sent.other = 0;
      return taken;
    },
    close() {
      server.closeAllConnections();
      server.close();
    },
  };
}
