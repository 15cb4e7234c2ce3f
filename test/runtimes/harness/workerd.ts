/** Bundles a program for workerd as its tools do, and starts it. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { createInterface } from 'node:readline';
import type { BuildOptions, Plugin } from 'esbuild';

/** Imports that are no scripts, by what workerd makes of them. */
const KINDS: Readonly<Record<string, string>> = { wasm: 'wasm', onnx: 'data' };

/** Options for esbuild, and the modules that the bundle leaves to workerd. */
export function workerdBuild(folder: string): { options: BuildOptions; modules: Map<string, string> } {
  const modules = new Map<string, string>();
  mkdirSync(folder, { recursive: true });
  const assets: Plugin = {
    name: 'assets',
    setup: ({ onResolve, resolve }) => {
      onResolve({ filter: /\.(wasm|onnx)$/ }, async ({ path, resolveDir, kind, pluginData }) => {
        if (pluginData === assets) return undefined;
        const found = await resolve(path, { resolveDir, kind, pluginData: assets });
        if (found.errors.length > 0) return { errors: found.errors };
        const name = basename(found.path);
        copyFileSync(found.path, join(folder, name));
        modules.set(name, KINDS[name.split('.').at(-1) as string] as string);
        return { path: name, external: true };
      });
    },
  };
  const options: BuildOptions = {
    platform: 'browser',
    conditions: ['workerd', 'worker', 'browser'],
    plugins: [assets],
  };
  return { options, modules };
}

/** A program that answers requests. */
export interface Served {
  readonly url: string;
  /** What it has printed. */
  output(): string;
  close(): Promise<void>;
}

/** Starts workerd with the bundle `main.mjs` of a folder. */
export async function serve(
  program: string,
  folder: string,
  modules: ReadonlyMap<string, string>,
): Promise<Served> {
  const listed = [
    '(name = "main.mjs", esModule = embed "main.mjs")',
    ...Array.from(modules, ([name, kind]) => `(name = "${name}", ${kind} = embed "${name}")`),
  ];
  const config = join(folder, 'config.capnp');
  writeFileSync(
    config,
    `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "main", worker = .worker)],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "main")]
);
const worker :Workerd.Worker = (modules = [${listed.join(', ')}], compatibilityDate = "2026-11-01");
`,
  );
  const child = spawn(program, ['serve', '--control-fd=1', config], { stdio: ['ignore', 'pipe', 'pipe'] });
  const exited = once(child, 'exit');
  let output = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    output = (output + text).slice(-4000);
  });
  for await (const line of createInterface({ input: child.stdout })) {
    const { event, port } = JSON.parse(line) as { event: string; port: number };
    if (event !== 'listen') continue;
    return {
      url: `http://127.0.0.1:${port}`,
      output: () => output,
      close: async () => {
        child.kill('SIGKILL');
        await exited;
      },
    };
  }
  throw new Error(`workerd does not start: ${output}`);
}
