import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { install, isExecutable, mayInstall } from './apt.mjs';

/** Servers and tools that tests start themselves, with the packages that have them. */
const servers = [
  { names: ['postgres', 'initdb'], packages: ['postgresql'] },
  { names: ['radosgw', 'ceph-mon', 'ceph-osd'], packages: ['radosgw', 'ceph-mon', 'ceph-osd'] },
  { names: ['promtool'], packages: ['prometheus'] },
];

/** Installs the servers that tests talk to, in CI; elsewhere the tests that need one that is not there are skipped and say so. */
export async function ensureServers() {
  if (!process.env.CI || !mayInstall()) return;
  const missing = servers.filter(({ names }) => !names.every(isThere));
  await install(missing.flatMap(({ packages }) => packages));
}

function isThere(name) {
  const folders = (process.env.PATH ?? '').split(':').filter(Boolean);
  return [...folders, ...postgresFolders()].some((folder) => isExecutable(join(folder, name)));
}

function postgresFolders() {
  const base = '/usr/lib/postgresql';
  return existsSync(base) ? readdirSync(base).map((version) => join(base, version, 'bin')) : [];
}
