/**
 * Keeps a thread from being ended inside native code. Ending a worker, or the process, while onnxruntime-node runs in
 * it aborts the whole process; so both sides agree, through one shared integer, on when it is safe.
 */
import type { Guard } from './host.ts';

const IDLE = 0;
const RUNNING = 1;
const CLOSED = 2;
const CLOSING = 3;

/** The shared integer. */
export type Cell = Int32Array<SharedArrayBuffer>;

/** Creates the integer that a worker and its host share. */
export function createCell(): Cell {
  return new Int32Array(new SharedArrayBuffer(4));
}

/** The worker's side. Once the host wants to end the thread, both calls wait for that and never return. */
export function createGuard(cell: Cell): Guard {
  const park = (): void => {
    while (Atomics.load(cell, 0) === CLOSED) Atomics.wait(cell, 0, CLOSED);
  };
  return {
    enter: () => {
      if (Atomics.compareExchange(cell, 0, IDLE, RUNNING) !== IDLE) park();
    },
    leave: () => {
      if (Atomics.compareExchange(cell, 0, RUNNING, IDLE) === RUNNING) return;
      Atomics.store(cell, 0, CLOSED);
      Atomics.notify(cell, 0);
      park();
    },
  };
}

/** Asks the worker to stop at the end of its native call. @returns whether it has stopped already. */
function requestStop(cell: Cell): boolean {
  for (;;) {
    const state = Atomics.load(cell, 0);
    if (state === CLOSED) return true;
    if (state === CLOSING) return false;
    if (Atomics.compareExchange(cell, 0, state, state === IDLE ? CLOSED : CLOSING) === state)
      return state === IDLE;
  }
}

/** Notes that the thread has ended by itself, perhaps inside native code, so that nobody waits for it. */
export function markEnded(cell: Cell): void {
  Atomics.store(cell, 0, CLOSED);
}

/** Longest time, in milliseconds, that the end of a process waits for one native call. */
const EXIT_WAIT_MS = 30_000;

/** Blocks until the worker is outside native code for good. */
function quiesceNow(cell: Cell): void {
  if (!requestStop(cell)) Atomics.wait(cell, 0, CLOSING, EXIT_WAIT_MS);
}

const POLL_MS = 2;

/** Waits until the worker is outside native code for good, without blocking the thread. */
export async function quiesce(cell: Cell): Promise<void> {
  while (!requestStop(cell)) {
    await new Promise((resolve) => {
      setTimeout(resolve, POLL_MS);
    });
  }
}

const brand = /* @__PURE__ */ Symbol.for('inlay.quiesce');
type ExitListener = (() => void) & { readonly [brand]: Set<Cell> };

/**
 * Quiesces a worker when the process exits, whatever makes it exit.
 * @returns stops watching.
 */
export function quiesceAtExit(cell: Cell): () => void {
  // All workers share one listener, which the process itself keeps: Node warns about more than ten.
  const isOurs = (listener: object): listener is ExitListener => brand in listener;
  let listener = process.listeners('exit').find(isOurs);
  if (listener === undefined) {
    const cells = new Set<Cell>();
    const quiesceAll = (): void => {
      for (const each of cells) requestStop(each);
      for (const each of cells) quiesceNow(each);
    };
    listener = Object.assign(quiesceAll, { [brand]: cells });
    process.on('exit', listener);
  }
  const { [brand]: cells } = listener;
  cells.add(cell);
  return () => {
    cells.delete(cell);
    if (cells.size === 0) process.off('exit', listener);
  };
}
