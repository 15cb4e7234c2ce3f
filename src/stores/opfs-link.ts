/** Writes blobs and parts of them in a worker, which has the fast way to files: both ends of its messages. */

import { fromErrorRecord, toErrorRecord, type ErrorRecord } from '../core/errors.ts';
import { placeOf, type BlobWriter } from './opfs-file.ts';
import type { openPartFile, PartFileWriter, PartPlace, PartRequest } from './opfs-part-file.ts';
import { storeError } from './web-storage.ts';

/** First message, with a port for the blob or the part. Each message on that port is answered before the next is sent. */
type Begin = { readonly directory: string; readonly sha256: string } | { readonly part: PartRequest };
type Request = Uint8Array<ArrayBuffer> | 'place' | 'abandon' | PartStep;
/** A method of a part's file, and its arguments. */
type PartStep = {
  readonly [Key in keyof PartFileWriter]: readonly [Key, ...Parameters<PartFileWriter[Key]>];
}[keyof PartFileWriter];
type Reply = { readonly value?: unknown } | { readonly error: ErrorRecord };

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
  /** Opens the file of a part there; `undefined` where the worker does not start. */
  openPart(request: PartRequest): Promise<(PartPlace & { readonly writer: PartFileWriter }) | undefined>;
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

  /** Sends a first message; `undefined` where no worker answers it. */
  const connect = async (first: Begin, directory: string): Promise<Connection | undefined> => {
    if (isUnusable) return undefined;
    clearTimeout(idle);
    const { port1, port2 } = new MessageChannel();
    const { ask, entry } = createAsk(port1, placeOf(directory), end);
    open.add(entry);
    const forget = (): void => {
      port1.close();
      if (open.delete(entry) && open.size === 0) idle = setTimeout(end, idleMs);
    };
    try {
      worker ??= start();
      worker.postMessage(first, [port2]);
      return { ask, forget, isOpen: () => open.has(entry), answer: await ask() };
    } catch (error) {
      forget();
      // What the worker says itself would not be better elsewhere.
      if (worker !== undefined) throw error;
      isUnusable = true;
      return undefined;
    }
  };

  return {
    begin: async (directory, sha256) => {
      const connection = await connect({ directory, sha256 }, directory);
      if (connection === undefined) return undefined;
      const { ask, forget, isOpen } = connection;
      return {
        write: async (piece) => void (await ask(piece, [piece.buffer])),
        place: async () => {
          const sizeBytes = (await ask('place')) as number;
          forget();
          return sizeBytes;
        },
        abandon: async () => {
          if (!isOpen()) return;
          await ask('abandon').catch(() => {});
          forget();
        },
      };
    },

    openPart: async (part) => {
      const connection = await connect({ part }, part.directory);
      if (connection === undefined) return undefined;
      const { ask, forget, answer } = connection;
      return {
        ...(answer as PartPlace),
        writer: {
          // Copied, not transferred: a write that fails is repeated.
          write: async (...range) => void (await ask(['write', ...range])),
          read: async (...range) => (await ask(['read', ...range])) as Uint8Array<ArrayBuffer>,
          flush: async () => void (await ask(['flush'])),
          hash: async () => (await ask(['hash'])) as string,
          place: async () => {
            await ask(['place']);
            forget();
          },
          close: async () => {
            await ask(['close']).finally(forget);
          },
        },
      };
    },
    close: end,
  };
}

/** A blob or a part in the worker. */
interface Connection {
  readonly ask: Ask['ask'];
  /** What the first message was answered with. */
  readonly answer: unknown;
  isOpen(): boolean;
  /** Frees what talks to it. */
  forget(): void;
}

interface Ask {
  /** Sends a request, if any, and waits for the answer. */
  ask(request?: Request, transfer?: Transferable[]): Promise<unknown>;
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
        return reply.value;
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
  openPart: typeof openPartFile,
): void {
  scope.addEventListener('message', ({ data: first, ports: [port] }) => {
    if (port === undefined) return;
    const answer = async (task: () => Promise<unknown>): Promise<void> => {
      const reply: Reply = await task().then(
        (value) => ({ value }),
        (error: unknown) => ({ error: toErrorRecord(error) }),
      );
      port.postMessage(reply);
    };
    const serve = (open: () => Promise<unknown>, act: (request: Request) => Promise<unknown>): void => {
      port.onmessage = ({ data }: MessageEvent<Request>) => void answer(() => act(data));
      void answer(open);
    };
    if ('part' in first) servePart(serve, () => openPart(first.part));
    else serveBlob(serve, () => begin(first.directory, first.sha256));
  });
}

type Serve = (open: () => Promise<unknown>, act: (request: Request) => Promise<unknown>) => void;

function serveBlob(serve: Serve, begin: () => Promise<BlobWriter>): void {
  let writer: BlobWriter | undefined;
  serve(
    async () => {
      writer = await begin();
    },
    async (request) => {
      if (request === 'place') return writer?.place();
      return request === 'abandon' ? writer?.abandon() : writer?.write(request as Uint8Array<ArrayBuffer>);
    },
  );
}

function servePart(serve: Serve, open: () => ReturnType<typeof openPartFile>): void {
  let writer: PartFileWriter | undefined;
  serve(
    async () => {
      const { file, isKept, ...opened } = await open();
      writer = opened.writer;
      return { file, isKept } satisfies PartPlace;
    },
    async (request) => {
      const [step, ...range] = request as PartStep;
      const task = writer?.[step] as ((...range: readonly unknown[]) => Promise<unknown>) | undefined;
      return task?.(...range);
    },
  );
}
