import { createServer } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { getRequestListener } from '@hono/node-server';
import type { Hono } from 'hono';
import type { Platform } from '../core/platform.ts';

/** A socket that takes requests. */
export interface Listening {
  /** Such as `http://127.0.0.1:8787`. */
  readonly url: string;
  /** Takes no more requests, answers those in flight for up to 5 s, and ends. */
  close(): Promise<void>;
}

/** A large upload on a slow line takes longer than Node's five minutes. */
const requestTimeoutMs = 6 * 3_600_000;
const drainMs = 5_000;

/** Serves an app over HTTP/1.1. Rejects with `EADDRINUSE` if the port is taken. */
export async function listen(
  app: Hono,
  { host, port, platform }: { host: string; port: number; platform: Pick<Platform, 'setTimer'> },
): Promise<Listening> {
  const listener = getRequestListener(app.fetch, { overrideGlobalObjects: false });
  const sockets = new Set<Socket>();
  const busy = new Set<Socket>();
  let closing = false;
  // Node counts a connection that was opened ahead, and never used, as busy; browsers keep such ones.
  const dropIdle = (): void => {
    for (const socket of sockets) if (!busy.has(socket)) socket.destroy();
  };

  const server = createServer({ requestTimeout: requestTimeoutMs }, (request, response) => {
    const { socket } = request;
    busy.add(socket);
    response.once('close', () => {
      busy.delete(socket);
      if (closing) dropIdle();
    });
    void listener(request, response);
  });
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  await new Promise<void>((done, fail) => {
    server.once('error', fail);
    server.listen(port, host, done);
  });

  const { address, family, port: actualPort } = server.address() as AddressInfo;
  return {
    url: `http://${family === 'IPv6' ? `[${address}]` : address}:${actualPort}`,
    close: async () => {
      closing = true;
      const closed = new Promise((done) => {
        server.close(done);
      });
      dropIdle();
      const cancel = platform.setTimer(() => {
        server.closeAllConnections();
      }, drainMs);
      await closed;
      cancel();
    },
  };
}
