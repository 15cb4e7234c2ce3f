import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';
import { expect, it, onTestFinished } from 'vitest';
import { listReleases } from '../../src/publish/release.ts';
import type { Targets } from '../../src/trust/metadata.ts';
import { startUser, type User } from './cli-user.ts';
import { scale } from './publish-fixture.ts';
import { verify } from './server-fixture.ts';

const main = fileURLToPath(new URL('../../build/cli/main.js', import.meta.url));

/** A way to the server on which somebody listens. */
interface Tapped {
  readonly url: string;
  /** Called when a request was answered, before the answer is handed on. */
  onAnswer: () => void;
}

async function tap(serverUrl: string): Promise<Tapped> {
  const proxy = createServer((request, response) => {
    void (async () => {
      const chunks: Buffer[] = [];
      for await (const chunk of request) chunks.push(chunk as Buffer);
      const { authorization } = request.headers;
      const answer = await fetch(serverUrl + request.url, {
        method: request.method ?? 'GET',
        headers: { ...(authorization !== undefined && { Authorization: authorization }) },
        ...(request.method === 'PUT' && { body: Buffer.concat(chunks) }),
      });
      const body = Buffer.from(await answer.arrayBuffer());
      tapped.onAnswer();
      response
        .writeHead(answer.status, { 'content-type': answer.headers.get('content-type') ?? '' })
        .end(body);
    })();
  }).listen(0, '127.0.0.1');
  await once(proxy, 'listening');
  onTestFinished(() => void proxy.close());
  const tapped: Tapped = {
    url: `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`,
    onAnswer: () => {},
  };
  return tapped;
}

/** Publishes in a process of its own. @returns its exit code, `null` if it was killed. */
async function publish(
  user: User,
  network: Tapped,
  version: string,
  killAfter = Infinity,
): Promise<number | null> {
  const args = ['publish', `${version}.onnx`, '--name', 'digits', '--version', version, '--no-check'];
  const child = spawn(process.execPath, [main, ...args, '--profile', `${version}.json`], {
    cwd: user.cwd,
    env: { ...process.env, INLAY_SERVER: network.url, INLAY_TOKEN: user.server.token },
    stdio: 'ignore',
  });
  let answers = 0;
  network.onAnswer = () => {
    answers += 1;
    if (answers === killAfter) child.kill('SIGKILL');
  };
  const [code] = (await once(child, 'exit')) as [number | null];
  return code;
}

function filesOf(targets: Targets, seq: number): readonly string[] {
  return Object.keys(targets.targets)
    .filter((path) => path.startsWith(`models/digits/${seq}/`))
    .map(
      (path) =>
        path
          .split('/')
          .at(-1)
          ?.replace(/^\d+\./, '') ?? '',
    )
    .sort();
}

it('a publish that is killed after any answer of the server is completed by the same command', async () => {
  const user = await startUser();
  const network = await tap(user.server.url);
  let killed = 0;
  for (let step = 1; ; step += 1) {
    const version = String(step);
    await user.write(`${version}.onnx`, scale(step, new Float32Array(500)));
    const profile = { v: 1, inputs: {}, outputs: {}, accuracy: 1 / step };
    await user.write(`${version}.json`, JSON.stringify(profile));
    const code = await publish(user, network, version, step);
    if (code !== null) {
      expect(code).toBe(0);
      break;
    }
    killed += 1;
    // What is there of it is whole, or not yet there.
    const between = filesOf((await verify(user.server)).targets, step);
    expect([0, 4]).toContain(between.length);
    expect(await publish(user, network, version)).toBe(0);
    const { targets } = await verify(user.server);
    expect(filesOf(targets, step)).toEqual(['onnx', 'onnx.gz', 'profile.json', 'release.json']);
    expect(listReleases(targets)).toHaveLength(step);
  }
  // Two for what is in force, two for each of the four files, and one for the targets.
  expect(killed).toBe(11);
}, 240_000);
