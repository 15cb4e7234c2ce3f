/** A store that lives in a dedicated worker, under the hands of a test on the page. */
import * as comlink from 'comlink';
import { equalBytes } from '../../src/core/bytes.ts';
import { fromErrorRecord } from '../../src/core/errors.ts';
import type { Store } from '../../src/core/store.ts';
import { isIterable } from '../../src/stores/rules.ts';
import type { RemoteStore, Settled, StoreChoice } from './store-remote.worker.ts';

/** Opens a store in a worker of its own. */
export async function openInWorker(choice: StoreChoice): Promise<Store> {
  const worker = new Worker(new URL('store-remote.worker.ts', import.meta.url), { type: 'module' });
  const remote = comlink.wrap<RemoteStore>(worker);
  await remote.open(choice);

  const settle = <Value>({ value, error, rangeError }: Settled<Value>): Value => {
    if (rangeError !== undefined) throw new RangeError(rangeError);
    if (error !== undefined) throw fromErrorRecord(error);
    return value as Value;
  };
  const toBlob = (facts: { sha256: string; sizeBytes: number }) => ({
    ...facts,
    bytes: async () => settle(await remote.bytes(facts.sha256)),
    read: async (offset: number, length: number) => settle(await remote.read(facts.sha256, offset, length)),
  });

  return {
    info: () => ({ kind: choice.kind, location: choice.name }),
    blob: async (sha256) => {
      const facts = settle(await remote.blob(sha256));
      return facts && toBlob(facts);
    },
    putBlob: async (sha256, content) => {
      if (!isIterable(content)) return toBlob(settle(await remote.putWhole(sha256, content)));
      // What a stream throws is not the store's, and comes from this side.
      let thrown: { readonly error: unknown } | undefined;
      const iterator = content[Symbol.asyncIterator]();
      const next = async (): Promise<Uint8Array | undefined> => {
        try {
          const { done = false, value } = await iterator.next();
          return done ? undefined : (value as Uint8Array);
        } catch (error) {
          thrown = { error };
          throw error;
        }
      };
      const settled = await remote.putPieces(
        sha256,
        comlink.proxy(next),
        comlink.proxy(async () => void (await iterator.return?.())),
      );
      if (thrown) throw thrown.error;
      return toBlob(settle(settled));
    },
    openPartial: async (sha256, sizeBytes) => {
      const { id, note } = settle(await remote.openPartial(sha256, sizeBytes));
      return {
        note,
        write: async (offset, bytes) => settle(await remote.partWrite(id, offset, bytes)),
        read: async (offset, length) => settle(await remote.partRead(id, offset, length))!,
        save: async (saved) => settle(await remote.partSave(id, saved)),
        finish: async (digest) => toBlob(settle(await remote.partFinish(id, digest))!),
        discard: async () => settle(await remote.partDiscard(id)),
        close: async () => settle(await remote.partClose(id)),
      };
    },
    deleteBlob: async (sha256) => settle(await remote.deleteBlob(sha256)),
    describeBlobs: async () => settle(await remote.describeBlobs()),
    pin: async (owner, blobs) => settle(await remote.pin(owner, blobs)),
    reserve: async (sizeBytes) => settle(await remote.reserve(sizeBytes)),
    persist: async () => settle(await remote.persist()),
    readRecord: async (name) => settle(await remote.readRecord(name)),
    // A change runs in the middle of a transaction, which cannot wait for the page: ask for it, then swap if it holds.
    updateRecord: async (name, change) => {
      for (;;) {
        const present = settle(await remote.readRecord(name));
        const changed = change(present?.slice());
        if (changed === undefined) return present;
        const { isSwapped, content } = settle(await remote.swapRecord(name, present, changed));
        if (isSwapped) return content;
        if (content && present && equalBytes(content, present))
          throw new Error('It should have been swapped.');
      }
    },
    close: async () => settle(await remote.close()),
  };
}
