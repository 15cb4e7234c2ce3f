import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { expect, it } from 'vitest';
import { createReportServer } from '../core/telemetry/report-server.ts';

/** Processes that are killed while they report. */
const KILLS = 6;

it('a device that is killed at any time loses nothing that it wrote down, and nothing counts twice', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'inlay-telemetry-'));
  const reports = createReportServer();
  let requests = 0;
  const server = createServer((request, response) => {
    void (async () => {
      const pieces: Buffer[] = [];
      for await (const piece of request) pieces.push(piece as Buffer);
      const answer = await reports.fetch(`https://sync.test${request.url}`, {
        body: new Uint8Array(Buffer.concat(pieces)),
      });
      requests += 1;
      // Some answers are lost on their way.
      if (requests % 4 === 0) request.socket.destroy();
      else response.writeHead(answer.status).end(await answer.text());
    })().catch(() => request.socket.destroy());
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  try {
    await build({
      entryPoints: [fileURLToPath(new URL('telemetry-reporter.worker.ts', import.meta.url))],
      outfile: join(folder, 'reporter.mjs'),
      bundle: true,
      format: 'esm',
      platform: 'node',
      target: 'node20',
      logLevel: 'error',
    });
    await writeFile(join(folder, 'package.json'), '{"type":"module"}');
    const written: string[] = [];
    const run = async (name: string, rounds: number, killAfter: number): Promise<void> => {
      const child = spawn(
        process.execPath,
        [join(folder, 'reporter.mjs'), join(folder, 'store'), `http://127.0.0.1:${port}`, name, `${rounds}`],
        { stdio: ['ignore', 'pipe', 'inherit'] },
      );
      const exit = once(child, 'exit');
      let text = '';
      for await (const piece of child.stdout) {
        text += String(piece);
        if (text.split('\n').length > killAfter) child.kill('SIGKILL');
      }
      await exit;
      written.push(...text.split('\n').slice(0, -1));
    };
    for (let kill = 0; kill < KILLS; kill += 1) await run(`${kill}`, 1000, 1 + ((kill * 7) % 11));
    await run('last', 3, Infinity);
    const counts = new Map<string, number>();
    for (const { ver, n } of reports.windows()) counts.set(ver, (counts.get(ver) ?? 0) + n);
    expect([...counts].filter(([, count]) => count > 1)).toEqual([]);
    expect(written.filter((ver) => !counts.has(ver))).toEqual([]);
    // What a killed process had written but not said may be there, too.
    expect(counts.size).toBeGreaterThanOrEqual(written.length);
    expect(written.length).toBeGreaterThan(KILLS);
  } finally {
    server.close();
    server.closeAllConnections();
    await rm(folder, { recursive: true, force: true });
  }
}, 60_000);
