/** The signer process as the server sees it: asked over a pipe, and started again when it dies. */

import { spawn, type ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { fromErrorRecord, ServerError } from '../../core/errors.ts';
import type { Platform } from '../../core/platform.ts';
import type { OnlineSigner, SignerFacts } from './port.ts';
import { readLines, type Answer, type Verb } from './protocol.ts';

/** Options of {@link spawnSigner}. */
export interface SpawnSignerOptions {
  readonly directory: string;
  readonly platform: Pick<Platform, 'setTimer'>;
  /** Gets deaths of the process, which is started again. */
  readonly onError: (error: unknown) => void;
  /** Passphrase or signing command, and where programs are found. */
  readonly env: Readonly<Record<string, string | undefined>>;
}

/** A signer in a process of its own. */
export interface SpawnedSigner extends OnlineSigner {
  /** Of the process that runs now. */
  readonly pid: number | undefined;
}

const firstDelayMs = 100;
const longestDelayMs = 30_000;
/** A request takes milliseconds; a command of a KMS may take its time. */
const answerTimeoutMs = 90_000;
/** How long a request waits for a process that is being started again. */
const startTimeoutMs = 15_000;

/** A process that runs, and what it still owes answers to. */
interface Running {
  readonly child: ChildProcess;
  ask(verb: Verb, body: unknown): Promise<unknown>;
}

/**
 * Starts the signer process.
 * @throws what the process says of its start, such as a damaged key; {@link ServerError} `ERR_INLAY_SERVER` if there can
 * be no process.
 */
export async function spawnSigner(options: SpawnSignerOptions): Promise<SpawnedSigner> {
  const { directory, platform, onError, env } = options;
  const script = new URL('./main.js', import.meta.url);
  let closed = false;
  let delayMs = firstDelayMs;
  let cancelTimer = (): void => undefined;

  const start = async (): Promise<{ readonly running: Running; readonly facts: SignerFacts }> => {
    const { running, ready } = run(spawnChild(script, directory, env), platform, died);
    return { running, facts: (await ready) as SignerFacts };
  };

  const { running: first, facts } = await start();
  let current: Promise<Running> = Promise.resolve(first);
  let live: Running | undefined = first;

  function died(isOwn: boolean): void {
    if (closed || !isOwn) return;
    onError(new ServerError('ERR_INLAY_SERVER', 'The signer process ended; it is started again.'));
    restart();
  }

  function restart(): void {
    live = undefined;
    const again = startLater(delayMs);
    current = again;
    delayMs = Math.min(longestDelayMs, delayMs * 2);
    again.catch((error: unknown) => {
      onError(error);
      if (!closed) restart();
    });
  }

  async function startLater(afterMs: number): Promise<Running> {
    await new Promise<void>((done) => {
      cancelTimer = platform.setTimer(done, afterMs);
    });
    const { running, facts: now } = await start();
    if (closed || now.keyid !== facts.keyid) {
      closed = true;
      running.child.kill('SIGKILL');
      throw new ServerError('ERR_INLAY_SERVER', 'The online key was exchanged; start the server again.');
    }
    live = running;
    return running;
  }

  const ask = async (verb: Verb, body: unknown): Promise<unknown> => {
    if (closed) throw new ServerError('ERR_INLAY_SERVER', 'The signer was closed; start the server again.');
    const { ask: askNow } = await within(current, startTimeoutMs, platform);
    const result = await askNow(verb, body);
    delayMs = firstDelayMs;
    return result;
  };

  return {
    keyid: facts.keyid,
    key: facts.key,
    get pid() {
      return live?.child.pid;
    },
    public: async () => (await ask('public', {})) as SignerFacts,
    rollout: async (body) => (await ask('rollout', body)) as string,
    snapshot: async (body) => (await ask('snapshot', body)) as string,
    timestamp: async (body) => (await ask('timestamp', body)) as string,
    close: async () => {
      if (closed) return;
      closed = true;
      cancelTimer();
      if (live) await end(live.child);
    },
  };
}

function spawnChild(script: URL, directory: string, env: SpawnSignerOptions['env']): ChildProcess {
  try {
    return spawn(process.execPath, [fileURLToPath(script), directory], {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: { ...env },
      windowsHide: true,
    });
  } catch (cause) {
    throw noProcess(cause);
  }
}

/** Listens to a process until it ends. */
function run(
  child: ChildProcess,
  platform: Pick<Platform, 'setTimer'>,
  died: (wasReady: boolean) => void,
): { readonly running: Running; readonly ready: Promise<unknown> } {
  const waiting = new Map<number, { done(result: unknown): void; fail(error: unknown): void }>();
  let lastId = 0;
  let isReady = false;
  let isOver = false;

  const expect = (id: number): Promise<unknown> =>
    new Promise((done, fail) => {
      waiting.set(id, { done, fail });
    });

  const over = (cause?: unknown): void => {
    if (isOver) return;
    isOver = true;
    const lost = cause === undefined ? gone() : noProcess(cause);
    for (const { fail } of waiting.values()) fail(lost);
    waiting.clear();
    died(isReady);
  };
  child.on('error', over);
  child.on('close', () => {
    over();
  });
  // The end of the process says the same.
  child.stdin?.on('error', () => undefined);

  // A command that holds the key may hang; another process may have more luck.
  const cancelStart = platform.setTimer(() => child.kill('SIGKILL'), answerTimeoutMs);
  const ready = expect(0)
    .then((facts) => {
      isReady = true;
      return facts;
    })
    .finally(cancelStart);
  if (child.stdout) {
    readLines(child.stdout, (line) => {
      let message: Answer;
      try {
        message = JSON.parse(line) as Answer;
      } catch {
        child.kill('SIGKILL');
        return;
      }
      const { id, result, error } = message;
      const waiter = waiting.get(id);
      waiting.delete(id);
      if (error) waiter?.fail(fromErrorRecord(error));
      else waiter?.done(result);
    });
  }

  const ask: Running['ask'] = async (verb, body) => {
    if (isOver) throw gone();
    lastId += 1;
    const answered = expect(lastId);
    child.stdin?.write(`${JSON.stringify({ id: lastId, verb, body })}\n`);
    const cancel = platform.setTimer(() => child.kill('SIGKILL'), answerTimeoutMs);
    try {
      return await answered;
    } finally {
      cancel();
    }
  };
  return { running: { child, ask }, ready };
}

/** The process ends with its input. */
async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  await new Promise((done) => {
    child.once('exit', done);
    child.stdin?.end();
  });
}

async function within<Result>(
  promise: Promise<Result>,
  timeoutMs: number,
  platform: Pick<Platform, 'setTimer'>,
): Promise<Result> {
  let cancel = (): void => undefined;
  const late = new Promise<never>((_, fail) => {
    cancel = platform.setTimer(() => {
      fail(gone());
    }, timeoutMs);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    cancel();
  }
}

function gone(): ServerError {
  return new ServerError('ERR_INLAY_SERVER', 'The signer process does not answer; try again in a moment.');
}

function noProcess(cause: unknown): ServerError {
  return new ServerError(
    'ERR_INLAY_SERVER',
    'The signer process cannot be started; where no process may be, start the server with the signer inline.',
    { cause },
  );
}
