import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { root, runNpm, SetupError } from './run.mjs';

/** Installs exactly what `package-lock.json` pins, unless it is installed already. */
export async function ensurePackages() {
  if (installed()) return;
  console.log('Installing packages (npm ci) …');
  const code = await runNpm(['ci', '--include=dev', '--prefer-offline', '--loglevel=error'], {
    // The install script of onnxruntime-node would fetch CUDA libraries from outside the registry.
    env: { ONNXRUNTIME_NODE_INSTALL: 'skip' },
  });
  if (code !== 0 || !installed()) {
    throw new SetupError(
      `\`npm ci\` failed with code ${code}: make sure that the npm registry can be reached (\`npm ping\`), then run this command again.`,
    );
  }
}

/** Compares the tree that npm wrote down after its last install in `folder` with the lock file. */
export function installed(folder = '.') {
  const wanted = packagesOf(join(folder, 'package-lock.json'));
  const present = packagesOf(join(folder, 'node_modules', '.package-lock.json'));
  if (wanted === undefined || present === undefined) return false;
  return Object.entries(wanted).every(([path, entry]) => {
    const found = present[path];
    // Optional entries are left out on platforms that they do not support.
    if (found === undefined) return path === '' || entry.optional === true;
    return found.version === entry.version && found.integrity === entry.integrity;
  });
}

function packagesOf(path) {
  try {
    return JSON.parse(readFileSync(join(root, path), 'utf8')).packages;
  } catch {
    return undefined;
  }
}
