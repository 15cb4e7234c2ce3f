/** A name that no other test uses, for a folder and a database. */
export function freshName(): string {
  return `test-${crypto.randomUUID()}`;
}

/** Names of the files in a folder of the origin private file system. */
export async function filesIn(directory: string): Promise<readonly string[]> {
  const root = await navigator.storage.getDirectory();
  const names: string[] = [];
  try {
    const folder = await root.getDirectoryHandle(directory);
    for await (const name of (folder as unknown as { keys(): AsyncIterable<string> }).keys())
      names.push(name);
  } catch (error) {
    if (!(error instanceof DOMException && error.name === 'NotFoundError')) throw error;
  }
  return names.sort();
}

/** Keys of everything in a database, as text. */
export async function keysIn(database: string): Promise<readonly string[]> {
  const db = await done(indexedDB.open(database));
  const keys = await done(db.transaction('inlay').objectStore('inlay').getAllKeys());
  db.close();
  return keys.map((key) => JSON.stringify(key));
}

/** Removes a folder and a database. */
export async function removeAll(name: string): Promise<void> {
  const root = await navigator.storage.getDirectory();
  await root.removeEntry(name, { recursive: true }).catch(() => {});
  await done(indexedDB.deleteDatabase(name));
}

function done<Result>(request: IDBRequest<Result>): Promise<Result> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
