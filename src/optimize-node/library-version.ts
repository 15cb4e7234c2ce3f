import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism, cpus } from 'node:os';
import { dirname, join } from 'node:path';

/** Writes what measurements are made with: `onnxruntime-node 1.30.0, x64 AMD EPYC ×8`. */
export function describeLibrary(name: string): string {
  const hardware = [process.arch, cpus()[0]?.model.trim(), `×${availableParallelism()}`];
  return `${[name, versionOf(name)].filter(Boolean).join(' ')}, ${hardware.filter(Boolean).join(' ')}`;
}

/** Folder of an installed package; `undefined` if it is not installed. */
export function packageFolder(name: string): string | undefined {
  try {
    // Not `package.json` by name: a package may keep it to itself.
    let folder = dirname(createRequire(import.meta.url).resolve(name));
    while (manifestOf(folder)?.name !== name) {
      const outer = dirname(folder);
      if (outer === folder) return undefined;
      folder = outer;
    }
    return folder;
  } catch {
    return undefined;
  }
}

function versionOf(name: string): string | undefined {
  const folder = packageFolder(name);
  return folder === undefined ? undefined : manifestOf(folder)?.version;
}

function manifestOf(folder: string): { readonly name?: string; readonly version?: string } | undefined {
  try {
    return JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as {
      name?: string;
      version?: string;
    };
  } catch {
    return undefined;
  }
}
