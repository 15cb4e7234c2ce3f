/** Apps in processes of their own, bundled from the sources so that they start fast. */
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { build } from 'esbuild';
import type { Tasks } from './heal-app.worker.ts';

/** An app that runs. */
export interface App {
  readonly child: ChildProcess;
  /** Has it do something. Rejects when that fails, or when the process ends meanwhile. */
  tell<Task extends keyof Tasks>(
    task: Task,
    ...args: Parameters<Tasks[Task]>
  ): Promise<Awaited<ReturnType<Tasks[Task]>>>;
  /** The signal that ended it, its exit code, or why it never ran. */
  readonly ended: Promise<string | number | null>;
  end(): Promise<void>;
}

/** Starts apps. */
export interface Apps {
  start(): App;
  close(): Promise<void>;
}

/** Bundles the app. */
export async function prepareApps(): Promise<Apps> {
  const folder = await mkdtemp(join(tmpdir(), 'inlay-heal-'));
  const require = createRequire(import.meta.url);
  const here = (name: string): string => fileURLToPath(new URL(name, import.meta.url));
  await build({
    entryPoints: {
      app: here('heal-app.worker.ts'),
      isolated: here('heal-isolated.worker.ts'),
      worker: here('../../src/worker.ts'),
    },
    outdir: folder,
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'node',
    target: 'node20',
    logLevel: 'error',
    plugins: [
      {
        name: 'libraries',
        setup: ({ onResolve }) => {
          // A bundle lies where no package is found.
          onResolve({ filter: /^(onnxruntime-node|onnxruntime-web|@opentelemetry\/api)/ }, ({ path }) => ({
            path: pathToFileURL(require.resolve(path)).href,
            external: true,
          }));
        },
      },
    ],
  });
  await writeFile(join(folder, 'package.json'), '{"type":"module"}');
  const running = new Set<App>();
  return {
    start: () => {
      const child = fork(join(folder, 'app.js'), [], {
        execArgv: [],
        serialization: 'advanced',
        stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
      });
      const ended = once(child, 'exit').then(([code, signal]) => (signal ?? code) as string | number | null);
      let waiting: { resolve: (result: never) => void; reject: (error: Error) => void } | undefined;
      child.on('message', ({ result, error }: { result: never; error?: string }) => {
        if (error === undefined) waiting?.resolve(result);
        else waiting?.reject(new Error(error));
      });
      void ended.then((how) => waiting?.reject(new Error(`The process ended: ${how}.`)));
      const app: App = {
        child,
        ended,
        tell: (task, argument?) =>
          new Promise((resolve, reject) => {
            waiting = { resolve, reject };
            if (child.connected) child.send({ task, argument });
            else reject(new Error('The process has ended.'));
          }),
        end: async () => {
          if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
          await ended;
          running.delete(app);
        },
      };
      running.add(app);
      return app;
    },
    close: async () => {
      await Promise.all([...running].map((app) => app.end()));
      await rm(folder, { recursive: true, force: true });
    },
  };
}
