import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { setTimeout } from 'node:timers/promises';
import { promisify } from 'node:util';
import { findProgram, keep, type Kept } from './kept.ts';

/** What `openS3Storage` reads from the environment, all but the bucket and the prefix. */
export interface S3Environment {
  readonly INLAY_S3_ENDPOINT: string;
  readonly INLAY_S3_ACCESS_KEY_ID: string;
  readonly INLAY_S3_SECRET_ACCESS_KEY: string;
}

const programs = ['radosgw', 'radosgw-admin', 'ceph', 'ceph-mon', 'ceph-osd', 'monmaptool'];
const missing = programs.filter((name) => findProgram(name) === undefined);

/** Whether there is no S3 server to test with; the reason is printed then. */
export const lacksRadosgw: boolean = missing.length > 0;
if (lacksRadosgw)
  console.log(`Skipped: there is no S3 server here (no \`${missing.join('`, `')}\` in PATH).`);

const execute = promisify(execFile);

/** Starts Ceph's S3 server over one store in memory. It ends with this process. */
export async function startRadosgw(): Promise<S3Environment> {
  for (let attempt = 1; ; attempt += 1) {
    const kept = await keep('inlay-rgw-');
    try {
      return await start(kept);
    } catch (error) {
      kept.close();
      // On a busy machine one part may come up too late for another.
      if (attempt === 8) throw error;
    }
  }
}

async function start(kept: Kept): Promise<S3Environment> {
  const { directory } = kept;
  const [monPort, port] = [await freePort(), await freePort()];
  const fsid = randomUUID();
  const osd = randomUUID();
  for (const name of ['mon', 'osd', 'rgw', 'run']) await mkdir(`${directory}/${name}`);
  const conf = `${directory}/ceph.conf`;
  await writeFile(
    conf,
    `[global]
fsid = ${fsid}
mon host = [v1:127.0.0.1:${monPort}]
public addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
ms bind msgr2 = false
ms bind ipv6 = false
run dir = ${directory}/run
admin socket = ${directory}/run/$name.asok
pid file = ${directory}/run/$name.pid
log file = /dev/null
mon cluster log file = /dev/null
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd objectstore = memstore
memstore device bytes = 1073741824
mon allow pool size one = true
mon max pg per osd = 1000
mon data = ${directory}/mon
osd data = ${directory}/osd
paxos min wait = 0.01
paxos propose interval = 0.02
mon osd min down reporters = 1
[client.rgw.a]
rgw frontends = beast endpoint=127.0.0.1:${port}
rgw data = ${directory}/rgw
rgw enable usage log = false
rgw run sync thread = false
rgw enable gc threads = false
rgw enable lc threads = false
rgw enable quota threads = false
`,
  );
  const common = ['-c', conf];
  /** Rejects when a part ends. */
  const broken = new Promise<never>((_, reject) => {
    for (const name of ['ceph-mon', 'ceph-osd', 'radosgw']) {
      void kept.ended(name).then(() => reject(new Error(`${name} has ended.`)));
    }
  });
  broken.catch(() => undefined);
  const run = (name: string, ...args: string[]): Promise<unknown> =>
    Promise.race([
      execute(findProgram(name) ?? name, [...common, ...args], { timeout: 20_000, killSignal: 'SIGKILL' }),
      broken,
    ]);
  const launch = (name: string, ...args: string[]): Promise<number> =>
    kept.start(name, findProgram(name) ?? name, [...common, ...args], { cwd: directory }, 'SIGKILL');

  const map = `${directory}/monmap`;
  const address = ['--addv', 'a', `[v1:127.0.0.1:${monPort}]`];
  await execute(findProgram('monmaptool') ?? '', ['--create', '--fsid', fsid, ...address, map]);
  await run('ceph-mon', '--mkfs', '-i', 'a', '--monmap', map);
  await launch('ceph-mon', '-f', '-i', 'a', '--public-addr', `127.0.0.1:${monPort}`);
  await run('ceph', '--connect-timeout', '30', 'osd', 'new', osd);
  await run('ceph-osd', '-i', '0', '--mkfs', '--osd-uuid', osd);
  await launch('ceph-osd', '-f', '-i', '0');
  const keys = { access: 'inlay-test', secret: 'a/secret+of=tests' };
  await run(
    ...(['radosgw-admin', 'user', 'create', '--uid', 'inlay', '--display-name', 'inlay'] as const),
    ...['--access-key', keys.access, '--secret-key', keys.secret],
  );
  await launch('radosgw', '-n', 'client.rgw.a', '-f');
  const endpoint = `http://127.0.0.1:${port}`;
  for (let tries = 0; !(await fetch(endpoint).catch(() => undefined)); tries += 1) {
    if (tries === 600) throw new Error('radosgw does not start.');
    await setTimeout(50);
  }
  return {
    INLAY_S3_ENDPOINT: endpoint,
    INLAY_S3_ACCESS_KEY_ID: keys.access,
    INLAY_S3_SECRET_ACCESS_KEY: keys.secret,
  };
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}
