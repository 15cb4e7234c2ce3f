import { execFileSync, spawn } from 'node:child_process';
import {
  accessSync,
  chmodSync,
  chownSync,
  constants,
  existsSync,
  mkdtempSync,
  readdirSync,
  rmSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Starts a PostgreSQL as it comes, in a folder of its own. @returns undefined where there is none. */
export async function startPostgres() {
  const [initdb, postgres] = ['initdb', 'postgres'].map(findProgram);
  if (!initdb || !postgres) return undefined;
  const directory = mkdtempSync(join(tmpdir(), 'inlay-bench-pg-'));
  const user = process.getuid?.() === 0 ? nobody() : {};
  chmodSync(directory, 0o755);
  if (user.uid !== undefined) chownSync(directory, user.uid, user.gid);
  const data = join(directory, 'data');
  const options = { ...user, cwd: directory, stdio: 'ignore' };
  execFileSync(initdb, ['-D', data, '-A', 'trust', '-U', 'inlay', '-E', 'UTF8', '--locale=C'], options);
  const server = spawn(postgres, ['-D', data, '-k', directory, '-c', 'listen_addresses='], options);
  const url = `postgres://inlay@localhost/postgres?host=${directory}`;
  const ended = new Promise((done) => server.once('exit', done));
  const close = async () => {
    server.kill('SIGINT');
    await ended;
    rmSync(directory, { recursive: true, force: true });
  };
  for (let tries = 0; ; tries += 1) {
    await new Promise((done) => setTimeout(done, 50));
    if (existsSync(join(directory, '.s.PGSQL.5432'))) return { url, close };
    if (tries < 200) continue;
    await close();
    throw new Error('PostgreSQL does not start.');
  }
}

/** PostgreSQL refuses to run as root. */
function nobody() {
  const id = (flag) => Number(execFileSync('id', [flag, 'nobody'], { encoding: 'utf8' }));
  return { uid: id('-u'), gid: id('-g') };
}

function findProgram(name) {
  const base = '/usr/lib/postgresql';
  const versions = existsSync(base) ? readdirSync(base).sort((a, b) => Number(b) - Number(a)) : [];
  return [...(process.env.PATH ?? '').split(':'), ...versions.map((version) => join(base, version, 'bin'))]
    .map((folder) => join(folder, name))
    .find((path) => {
      try {
        accessSync(path, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
}
