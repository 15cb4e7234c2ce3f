import { accessSync, constants, readFileSync } from 'node:fs';
import { run } from './run.mjs';

/** Tells whether a path is a program. */
export function isExecutable(path) {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** Tells whether this process may install packages of Debian or Ubuntu. */
export function mayInstall() {
  if (process.platform !== 'linux' || process.getuid?.() !== 0 || !isExecutable('/usr/bin/apt-get'))
    return false;
  return /^ID(?:_LIKE)?=.*\b(?:debian|ubuntu)\b/m.test(readFileSync('/etc/os-release', 'utf8'));
}

/** Installs packages one by one; those that cannot be had are named and left out. */
export async function install(packages) {
  if (packages.length === 0) return;
  console.log(`Installing ${packages.join(' and ')} with apt-get …`);
  const apt = (...args) =>
    run('apt-get', ['-qq', '-o', 'DPkg::Lock::Timeout=300', ...args], {
      env: { DEBIAN_FRONTEND: 'noninteractive' },
    });
  await apt('update');
  for (const name of packages) {
    if ((await apt('install', '-y', '--no-install-recommends', name)) !== 0) {
      console.log(`apt-get could not install ${name}.`);
    }
  }
}
