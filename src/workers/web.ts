/** Dedicated workers of browsers and of other runtimes that have them. */
import { toAbsolute } from '../core/absolute.ts';
import type { WorkerEnd, WorkerHandle } from './realm.ts';

/** What a worker is told first: which backend to host, and where its calls arrive. */
export interface WebWorkerMessage {
  readonly inlay: 'host';
  readonly port: MessagePort;
  readonly options: object;
}

/** Its answer, through that port. */
export interface WebWorkerAnswer {
  readonly inlay: 'hosting';
}

/** Options of {@link spawnWebWorker}. */
export interface WebWorkerOptions {
  /** Makes the worker, whose script calls `hostInWorker`. */
  readonly worker: () => Worker;
  /** What `hostInWorker` hands to the function that creates the backend: plain data. */
  readonly options?: object;
  /** Milliseconds that the worker may take until it listens. Default 30,000. */
  readonly startTimeoutMs?: number;
}

/**
 * Starts a dedicated worker. It may be ended at any moment, since WebAssembly and WebGPU take nothing along.
 * @throws what the constructor throws, such as for a script of another origin.
 */
export function spawnWebWorker(spawn: WebWorkerOptions): WorkerHandle {
  const { options = {}, startTimeoutMs = 30_000 } = spawn;
  const { worker, scriptUrl } = noteScript(spawn.worker);
  const terminate = worker.terminate.bind(worker);
  const { port1: port, port2 } = new MessageChannel();
  let isHosting = false;
  let settle: (end: WorkerEnd) => void;
  const ended = new Promise<WorkerEnd>((resolve) => {
    settle = resolve;
  });
  const finish = (end: WorkerEnd): void => {
    clearTimeout(startTimer);
    terminate();
    port.close();
    settle(end);
  };
  const fail = (what: string): void => {
    if (isHosting) finish({ reason: 'exit', cause: new Error(what) });
    else void explainStart(scriptUrl, what).then((cause) => finish({ reason: 'unstarted', cause }));
  };
  const startTimer = setTimeout(() => {
    fail(`it gave no sign for ${startTimeoutMs} ms`);
  }, startTimeoutMs);

  worker.addEventListener('error', (event) => {
    // What happens in the worker arrives where it was called, as an error of that call.
    event.preventDefault();
    fail(messageOf(event));
  });
  port.addEventListener('message', ({ data }: MessageEvent<Partial<WebWorkerAnswer> | undefined>) => {
    if (data?.inlay !== 'hosting') return;
    isHosting = true;
    clearTimeout(startTimer);
  });
  port.addEventListener('messageerror', () => {
    // A reply that cannot be read leaves its call without an answer.
    fail('it sent what cannot be read here');
  });
  // Nothing else tells of a worker that the app itself ends.
  worker.terminate = () => {
    finish({ reason: 'killed', cause: new Error('The app has terminated the worker.') });
  };
  const message: WebWorkerMessage = { inlay: 'host', port: port2, options };
  try {
    worker.postMessage(message, [port2]);
  } catch (error) {
    finish({ reason: 'killed', cause: error });
    throw error;
  }

  const kill = (): void => {
    finish({ reason: 'killed', cause: new Error('The worker was terminated.') });
  };
  return {
    endpoint: port,
    ended,
    setBusy: () => {},
    kill,
    end: async () => {
      kill();
    },
  };
}

const NOT_LOADED = 'its script was not loaded';

/** Only errors of scripts have a message; a script that was not loaded has none. */
function messageOf(event: Event): string {
  const { message } = event as Partial<ErrorEvent>;
  return message === undefined || message === '' ? NOT_LOADED : message;
}

/** Says in words why a worker did not start: the address of its script, and what is found there. */
async function explainStart(url: string | undefined, what: string): Promise<Error> {
  if (url === undefined) return new Error(`${what}.`);
  const fault = await probe(url);
  const hint =
    fault ??
    (what === NOT_LOADED ? 'which can be read: see that the policy of the page allows it' : undefined);
  return new Error(`${what}; the script is ${url}${hint === undefined ? '' : `, ${hint}`}.`);
}

/** Longest time, in milliseconds, that an explanation may take. */
const PROBE_MS = 5000;

/** @returns what is wrong with a script, if that can be told. */
async function probe(url: string): Promise<string | undefined> {
  const advice = 'serve the JavaScript of the worker there, or pass "worker"';
  try {
    const { ok, status, headers } = await fetch(url, { signal: AbortSignal.timeout(PROBE_MS) });
    if (!ok) return `which is answered with status ${status}: ${advice}`;
    const type = headers.get('content-type') ?? 'no content type';
    return /javascript|ecmascript/.test(type) ? undefined : `which is served as ${type}: ${advice}`;
  } catch {
    return 'which cannot be reached from this page';
  }
}

/**
 * Makes a worker, and finds the address of its script, which bundlers know only inside `new Worker(…)`. A function that
 * does not make it through the global constructor leaves the address unknown.
 */
function noteScript(make: () => Worker): { readonly worker: Worker; readonly scriptUrl: string | undefined } {
  const { Worker: original } = globalThis as { readonly Worker?: typeof Worker };
  if (original === undefined) return { worker: make(), scriptUrl: undefined };
  let scriptUrl: string | undefined;
  const noting: typeof Worker = new Proxy(original, {
    construct: (target, args: ConstructorParameters<typeof Worker>, newTarget: typeof Worker) => {
      scriptUrl = toAbsolute(args[0], globalThis);
      return Reflect.construct(target, args, newTarget === noting ? target : newTarget);
    },
  });
  // Reflect, because a runtime may have made it immutable; then nothing is noted.
  Reflect.set(globalThis, 'Worker', noting);
  try {
    const worker = make();
    return { worker, scriptUrl };
  } finally {
    if (globalThis.Worker === noting) Reflect.set(globalThis, 'Worker', original);
  }
}
