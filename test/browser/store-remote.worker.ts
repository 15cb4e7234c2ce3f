/** The worker's side of `openInWorker`. */
import * as comlink from 'comlink';
import { equalBytes } from '../../src/core/bytes.ts';
import { toErrorRecord, type ErrorRecord } from '../../src/core/errors.ts';
import type { PartialBlob, Store } from '../../src/core/store.ts';
import { openIndexedDbStore } from '../../src/stores/indexeddb.ts';
import { openOpfsStore } from '../../src/stores/opfs.ts';

/** Which store to open. */
export interface StoreChoice {
  readonly kind: 'opfs' | 'indexeddb';
  readonly name: string;
  readonly quotaBytes?: number;
}

/** How a call ended, as data. */
export interface Settled<Value> {
  readonly value?: Value;
  readonly error?: ErrorRecord;
  readonly rangeError?: string;
}

let store: Store;
const parts: PartialBlob[] = [];

async function settled<Value>(task: () => Promise<Value>): Promise<Settled<Value>> {
  try {
    return { value: await task() };
  } catch (error) {
    return error instanceof RangeError ? { rangeError: error.message } : { error: toErrorRecord(error) };
  }
}

const remote = {
  open: ({ kind, name, quotaBytes }: StoreChoice): void => {
    // Nothing here may start a worker: this one writes.
    const worker = (): never => {
      throw new Error('A worker was started.');
    };
    const quota = quotaBytes === undefined ? {} : { quotaBytes };
    store =
      kind === 'opfs'
        ? openOpfsStore({ directory: name, worker, ...quota })
        : openIndexedDbStore({ database: name, ...quota });
  },
  blob: (sha256: string) =>
    settled(async () => {
      const blob = await store.blob(sha256);
      return blob && { sha256, sizeBytes: blob.sizeBytes };
    }),
  bytes: (sha256: string) => settled(async () => (await store.blob(sha256))!.bytes()),
  read: (sha256: string, offset: number, length: number) =>
    settled(async () => (await store.blob(sha256))!.read(offset, length)),
  openPartial: (sha256: string, sizeBytes: number) =>
    settled(async () => {
      const part = await store.openPartial(sha256, sizeBytes);
      return { id: parts.push(part) - 1, note: part.note };
    }),
  partWrite: (id: number, offset: number, bytes: Uint8Array) =>
    settled(async () => parts[id]?.write(offset, bytes)),
  partRead: (id: number, offset: number, length: number) =>
    settled(async () => parts[id]?.read(offset, length)),
  partSave: (id: number, note: Uint8Array) => settled(async () => parts[id]?.save(note)),
  partFinish: (id: number, digest?: string) =>
    settled(async () => {
      const blob = await parts[id]?.finish(digest);
      return blob && { sha256: blob.sha256, sizeBytes: blob.sizeBytes };
    }),
  partDiscard: (id: number) => settled(async () => parts[id]?.discard()),
  partClose: (id: number) => settled(async () => parts[id]?.close()),
  putWhole: (sha256: string, content: Uint8Array) =>
    settled(async () => {
      const { sizeBytes } = await store.putBlob(sha256, content);
      return { sha256, sizeBytes };
    }),
  putPieces: (sha256: string, pull: () => Promise<Uint8Array | undefined>, end: () => Promise<void>) =>
    settled(async () => {
      const next = async (): Promise<IteratorResult<Uint8Array, undefined>> => {
        const value = await pull();
        return value ? { done: false, value } : { done: true, value: undefined };
      };
      const finish = async (): Promise<IteratorResult<Uint8Array, undefined>> => {
        await end();
        return { done: true, value: undefined };
      };
      const { sizeBytes } = await store.putBlob(sha256, {
        [Symbol.asyncIterator]: () => ({ next, return: finish }),
      });
      return { sha256, sizeBytes };
    }),
  deleteBlob: (sha256: string) => settled(() => store.deleteBlob(sha256)),
  describeBlobs: () => settled(() => store.describeBlobs()),
  pin: (owner: string, blobs: readonly string[]) => settled(() => store.pin(owner, blobs)),
  reserve: (sizeBytes: number) => settled(() => store.reserve(sizeBytes)),
  persist: () => settled(() => store.persist()),
  readRecord: (name: string) => settled(() => store.readRecord(name)),
  swapRecord: (name: string, expected: Uint8Array | undefined, changed: Uint8Array) =>
    settled(async () => {
      let isSwapped = false;
      const content = await store.updateRecord(name, (present) => {
        isSwapped = present && expected ? equalBytes(present, expected) : present === expected;
        return isSwapped ? changed : undefined;
      });
      return { isSwapped, content };
    }),
  close: () => settled(() => store.close()),
};

/** What the page calls. */
export type RemoteStore = typeof remote;

comlink.expose(remote);
