/** How blobs lie in a database. */

/** Written last: what has no manifest is no blob. Its chunks have the keys `['chunk', upload, 0]` and so on. */
export interface Manifest {
  readonly sha256: string;
  readonly sizeBytes: number;
  readonly chunks: number;
  readonly upload: string;
  readonly writtenAt: number;
}

/** Bytes of a chunk; the last one of a blob has what is left. */
export const chunkBytes: number = 1 << 22;

/** All keys that begin with these parts: arrays sort by their elements, and an array after any text or number. */
export function all(...parts: readonly string[]): IDBKeyRange {
  return IDBKeyRange.bound(parts, [...parts, []]);
}

/** Writes the manifest of a blob that was not there a moment ago, and drops the chunks that nobody needs then. */
export function placeBlob(store: IDBObjectStore, manifest: Manifest): void {
  const key = ['blob', manifest.sha256];
  const request = store.get(key) as IDBRequest<Manifest | undefined>;
  request.onsuccess = () => {
    const other = request.result;
    // Another tab may have been faster.
    const isThere = other?.sizeBytes === manifest.sizeBytes;
    if (!isThere) store.put(manifest, key);
    if (other !== undefined) store.delete(all('chunk', (isThere ? manifest : other).upload));
  };
}
