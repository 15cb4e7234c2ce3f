import { createServer } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { getRequestListener } from '@hono/node-server';
import type { Hono } from 'hono';
import { ServerError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';

/** A socket that takes requests. */
export interface Listening {
  /** Such as `http://127.0.0.1:8787`. */
  readonly url: string;
  /** Takes no more requests, answers those in flight for up to 5 s, and ends. */
  close(): Promise<void>;
}

/** What {@link listen} needs. */
export interface ListenOptions {
  readonly host: string;
  /** 0 takes any free port. */
  readonly port: number;
  readonly platform: Pick<Platform, 'setTimer'>;
  /** Gets errors of the socket that come after it listens. */
  readonly onError: (error: unknown) => void;
  /** A connection on which nothing moves for so long is given up, milliseconds. Default 5 minutes. */
  readonly idleTimeoutMs?: number;
}

/** A large upload on a slow line takes longer than Node's five minutes. */
const requestTimeoutMs = 6 * 3_600_000;
const drainMs = 5_000;

/**
 * Serves an app over HTTP/1.1.
 * @throws {@link ServerError} `ERR_INLAY_CONFLICT` if the port is taken.
 */
export async function listen(app: Hono, options: ListenOptions): Promise<Listening> {
  const { host, port, platform, onError, idleTimeoutMs = 300_000 } = options;
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
    // HTTP/1.1 keeps connections without being told (RFC 9112 §9.3), and a poll is small enough for that to count.
    response.removeHeader('connection');
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
  // A reader who stops in the middle of a file would keep the file open for ever.
  server.timeout = idleTimeoutMs;
  await new Promise<void>((done, fail) => {
    const refuse = (cause: NodeJS.ErrnoException): void => {
      fail(cause.code === 'EADDRINUSE' ? portTaken(host, port, cause) : cause);
    };
    server.once('error', refuse);
    server.listen(port, host, () => {
      server.off('error', refuse);
      server.on('error', onError);
      done();
    });
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

function portTaken(host: string, port: number, cause: Error): ServerError {
  return new ServerError(
    'ERR_INLAY_CONFLICT',
    `Port ${port} of ${host} is taken; stop what listens there, or choose another with --port.`,
    { cause, details: { host, port } },
  );
}
