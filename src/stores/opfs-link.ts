/** Writes blobs in a worker, which has the fast way to files: both ends of its messages. */

import { fromErrorRecord, toErrorRecord, type ErrorRecord } from '../core/errors.ts';
import { placeOf, type BlobWriter } from './opfs-file.ts';
import { storeError } from './web-storage.ts';

/** First message, with a port for the blob. Each message on that port is answered before the next is sent. */
interface Begin {
  readonly directory: string;
  readonly sha256: string;
}
type Request = Uint8Array<ArrayBuffer> | 'place' | 'abandon';
type Reply = { readonly sizeBytes?: number } | { readonly error: ErrorRecord };

/** The part of a `Worker` that is used. */
export interface WorkerLike {
  postMessage(message: unknown, transfer: Transferable[]): void;
  addEventListener(type: 'error' | 'messageerror', listener: () => void): void;
  terminate(): void;
}

/** Writers in a worker. */
export interface WriterWorker {
  /** Begins a blob there; `undefined` where the worker does not start, which is not tried again. */
  begin(directory: string, sha256: string): Promise<BlobWriter | undefined>;
  /** Ends the worker. Blobs that are not placed by then are lost. */
  close(): void;
}

/** One piece of a few megabytes takes milliseconds; a worker that is silent for so long has gone. */
const silenceMs = 30_000;
/** An answer that has arrived is read within this time, unless the page itself stands still. */
const graceMs = 1_000;
/** The worker ends when nothing was written for so long: it holds some megabytes. */
const idleMs = 5_000;

/** Talks to a worker that runs {@link serveWriters}; it is started when there is something to write. */
export function createWriterWorker(spawn: () => WorkerLike): WriterWorker {
  let worker: WorkerLike | undefined;
  let isUnusable = false;
  let idle: ReturnType<typeof setTimeout> | undefined;
  const open = new Set<{ lose(): void }>();

  const end = (): void => {
    clearTimeout(idle);
    worker?.terminate();
    worker = undefined;
    for (const { lose } of open) lose();
  };

  const start = (): WorkerLike => {
    const started = spawn();
    const fail = (): void => {
      if (worker === started) end();
    };
    started.addEventListener('error', fail);
    started.addEventListener('messageerror', fail);
    return started;
  };

  return {
    begin: async (directory, sha256) => {
      if (isUnusable) return undefined;
      clearTimeout(idle);
      const { port1, port2 } = new MessageChannel();
      const { ask, entry } = createAsk(port1, placeOf(directory), end);
      open.add(entry);
      const forget = (): void => {
        port1.close();
        open.delete(entry);
        if (open.size === 0) idle = setTimeout(end, idleMs);
      };
      try {
        worker ??= start();
        worker.postMessage({ directory, sha256 } satisfies Begin, [port2]);
        await ask();
      } catch (error) {
        forget();
        // What the worker says itself would not be better elsewhere.
        if (worker !== undefined) throw error;
        isUnusable = true;
        return undefined;
      }
      return {
        write: async (piece) => void (await ask(piece, [piece.buffer])),
        place: async () => {
          const { sizeBytes = 0 } = await ask('place');
          forget();
          return sizeBytes;
        },
        abandon: async () => {
          if (!open.has(entry)) return;
          await ask('abandon').catch(() => {});
          forget();
        },
      };
    },
    close: end,
  };
}

interface Ask {
  /** Sends a request, if any, and waits for the answer. */
  ask(request?: Request, transfer?: Transferable[]): Promise<{ readonly sizeBytes?: number }>;
  readonly entry: { lose(): void };
}

function createAsk(port: MessagePort, place: string, onSilence: () => void): Ask {
  let waiting: { resolve(reply: Reply): void; reject(error: unknown): void } | undefined;
  let isLost = false;
  port.onmessage = ({ data }: MessageEvent<Reply>) => waiting?.resolve(data);
  return {
    ask: async (request, transfer = []) => {
      if (isLost) throw storeError(place, 'write', 'its worker has gone');
      const dueMs = performance.now() + silenceMs;
      let timer = setTimeout(() => {
        // A device that slept for an hour with its worker finds this timer due, and an answer only after it.
        const lateMs = performance.now() - dueMs;
        timer = setTimeout(onSilence, Math.min(Math.max(lateMs, graceMs), silenceMs));
      }, silenceMs);
      try {
        const reply = await new Promise<Reply>((resolve, reject) => {
          waiting = { resolve, reject };
          if (request !== undefined) port.postMessage(request, transfer);
        });
        if ('error' in reply) throw fromErrorRecord(reply.error);
        return reply;
      } finally {
        clearTimeout(timer);
        waiting = undefined;
      }
    },
    entry: {
      lose: () => {
        isLost = true;
        waiting?.reject(storeError(place, 'write', 'its worker has gone'));
      },
    },
  };
}

/** The part of a worker's global scope that is used. */
interface WriterScope {
  addEventListener(type: 'message', listener: (event: MessageEvent<Begin>) => void): void;
}

/** Answers {@link createWriterWorker}, on the thread that writes. */
export function serveWriters(
  scope: WriterScope,
  begin: (directory: string, sha256: string) => Promise<BlobWriter>,
): void {
  scope.addEventListener('message', ({ data: { directory, sha256 }, ports: [port] }) => {
    if (port === undefined) return;
    const answer = async (task: () => Promise<{ sizeBytes?: number }>): Promise<void> => {
      const reply: Reply = await task().catch((error: unknown) => ({ error: toErrorRecord(error) }));
      port.postMessage(reply);
    };
    let writer: BlobWriter | undefined;
    port.onmessage = ({ data: request }: MessageEvent<Request>) =>
      void answer(async () => {
        if (request === 'place') return { sizeBytes: (await writer?.place()) ?? 0 };
        await (request === 'abandon' ? writer?.abandon() : writer?.write(request));
        return {};
      });
    void answer(async () => {
      writer = await begin(directory, sha256);
      return {};
    });
  });
}
