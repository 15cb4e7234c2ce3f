import { once } from 'node:events';
import { connect } from 'node:net';
import { Hono } from 'hono';
import { expect, it, onTestFinished } from 'vitest';
import { nodePlatform } from '../../src/platform-node.ts';
import { listen } from '../../src/server/listen.ts';

it('gives up a connection on which nothing moves', async () => {
  const errors: unknown[] = [];
  const app = new Hono();
  const reading = new Promise((done) => {
    app.put('/', async (c) => {
      const body = c.req.arrayBuffer();
      done(body);
      await body.catch(() => undefined);
      return c.text('late');
    });
  });
  const server = await listen(app, {
    host: '127.0.0.1',
    port: 0,
    platform: nodePlatform(),
    onError: (error) => errors.push(error),
    idleTimeoutMs: 50,
  });
  onTestFinished(() => server.close());
  const { hostname, port } = new URL(server.url);
  const socket = connect(Number(port), hostname);
  socket.write('PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf');
  socket.resume();
  await Promise.all([once(socket, 'close'), expect(reading).rejects.toThrow()]);
  expect(errors).toEqual([]);
});
