/** A page that keeps things, and says what it has kept. */
import { openIndexedDbStore } from 'inlay/stores/indexeddb';
import { openOpfsStore } from 'inlay/stores/opfs';
import { openLazily } from '../../src/stores/lazy.ts';
import { openWebStore } from '../../src/stores/web.ts';

type Kind = 'opfs' | 'indexeddb' | 'web';
type Store = ReturnType<typeof openOpfsStore>;

/** What a look at a store finds. */
export interface Findings {
  /** Blobs whose content has the hash that they are named by, and those whose content has not. */
  readonly intact: readonly string[];
  readonly damaged: readonly string[];
  /** Number in the record, all of whose bytes agree; -1 when they do not, 0 when there is none. */
  readonly count: number;
  readonly leftovers: readonly string[];
}

const openers: Readonly<Record<Kind, (name: string) => Store>> = {
  opfs: (name) => openOpfsStore({ directory: name }),
  indexeddb: (name) => openIndexedDbStore({ database: name }),
  // What a page has by default, from its source, where a worker is named otherwise.
  web: (name) =>
    openLazily('web', () =>
      openWebStore({
        name,
        logger: { warn: (_, message) => console.log(message) },
        worker: () =>
          new Worker(new URL('../../src/stores/opfs-writer.ts', import.meta.url), { type: 'module' }),
      }),
    ),
};
const stores = new Map<string, Store>();

function open(kind: Kind, name: string): Store {
  const key = `${kind} ${name}`;
  const store = stores.get(key) ?? openers[kind](name);
  stores.set(key, store);
  return store;
}

async function nameOf(content: Uint8Array<ArrayBuffer>): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', content));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

function contentOf(seed: number, sizeBytes: number): Uint8Array<ArrayBuffer> {
  const words = new Uint32Array(sizeBytes >> 2);
  let state = seed + 1;
  for (let i = 0; i < words.length; i += 1) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) | 0;
    words[i] = state;
  }
  return new Uint8Array(words.buffer);
}

/** A record that shows when it is torn: many times the same number. */
const toRecord = (count: number): Uint8Array => new Uint8Array(new Uint32Array(30_000).fill(count).buffer);
function fromRecord(bytes: Uint8Array | undefined): number {
  if (bytes === undefined) return 0;
  const words = new Uint32Array(bytes.slice().buffer);
  return words.length === 30_000 && words.every((word) => word === words[0]) ? (words[0] ?? -1) : -1;
}

async function* inPieces(content: Uint8Array, pieceBytes: number): AsyncGenerator<Uint8Array, void> {
  for (let at = 0; at < content.length; at += pieceBytes) yield content.subarray(at, at + pieceBytes);
}

async function leftoversIn(kind: Kind, name: string): Promise<readonly string[]> {
  if (kind !== 'indexeddb') {
    const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle(name);
    const names: string[] = [];
    for await (const file of (folder as unknown as { keys(): AsyncIterable<string> }).keys()) {
      if (file.length !== 64) names.push(file);
    }
    return names;
  }
  const request = indexedDB.open(name);
  const database = await new Promise<IDBDatabase>((resolve) => {
    request.onsuccess = () => resolve(request.result);
  });
  const store = database.transaction('inlay').objectStore('inlay');
  const [keys, manifests, parts] = await Promise.all(
    [
      store.getAllKeys(IDBKeyRange.bound(['chunk'], ['chunk', []])),
      store.getAll(IDBKeyRange.bound(['blob'], ['blob', []])),
      store.getAll(IDBKeyRange.bound(['part'], ['part', []])),
    ].map(
      (each) =>
        new Promise<unknown[]>((resolve) => {
          each.onsuccess = () => resolve(each.result);
        }),
    ),
  );
  database.close();
  const uploads = new Set((manifests as { upload: string }[]).map(({ upload }) => upload));
  for (const { data } of parts as { data: string }[]) uploads.add(data);
  return (keys as [string, string, number][])
    .filter(([, upload]) => !uploads.has(upload))
    .map((key) => key.join(' '));
}

const api = {
  /** Opens a store, reads everything in it, and looks what else lies there. */
  inspect: async (kind: Kind, name: string): Promise<Findings> => {
    const store = open(kind, name);
    const intact: string[] = [];
    const damaged: string[] = [];
    for (const { sha256 } of await store.describeBlobs()) {
      const content = await (await store.blob(sha256))?.bytes();
      (content && (await nameOf(content)) === sha256 ? intact : damaged).push(sha256);
    }
    // Cleaning ends before the first write.
    const probe = new Uint8Array([intact.length]);
    const { sha256: probed } = await store.putBlob(await nameOf(probe), probe);
    const leftovers = await leftoversIn(kind, name);
    await store.deleteBlob(probed);
    return { intact, damaged, count: fromRecord(await store.readRecord('count')), leftovers };
  },

  /** Changes a store without end, and says on the console what is done. */
  churn: (kind: Kind, name: string, seed: number): void => {
    const store = open(kind, name);
    const update = async (): Promise<void> => {
      for (;;) {
        const content = await store.updateRecord('count', (present) => toRecord(fromRecord(present) + 1));
        console.log(`${kind} count ${fromRecord(content)}`);
      }
    };
    const put = async (): Promise<void> => {
      const kept: string[] = [];
      for (let i = 0; ; i += 1) {
        const content = contentOf(seed + i, 40_000 + ((seed * 7 + i * 13) % 16) * 300_000);
        const sha256 = await nameOf(content);
        await store.putBlob(sha256, i % 2 ? content : inPieces(content, 65_536));
        console.log(`${kind} put ${sha256}`);
        kept.push(sha256);
        const old = kept.length > 2 ? kept.shift() : undefined;
        if (old === undefined) continue;
        console.log(`${kind} delete ${old}`);
        await store.deleteBlob(old);
      }
    };
    const download = async (): Promise<void> => {
      for (let i = 0; ; i += 1) {
        console.log(`${kind} part ${seed + 500_000 + i}`);
        const { sha256 } = await api.resume(kind, name, seed + 500_000 + i);
        console.log(`${kind} done ${sha256}`);
        console.log(`${kind} delete ${sha256}`);
        await store.deleteBlob(sha256);
      }
    };
    void download();
    void update();
    void put();
  },

  /** Goes on with a partial blob where its note says, saves now and then, and finishes it without reading it again. */
  resume: async (
    kind: Kind,
    name: string,
    seed: number,
  ): Promise<{ readonly sha256: string; readonly from: number; readonly sizeBytes: number }> => {
    const store = open(kind, name);
    const content = contentOf(seed, 4_000_000 + (seed % 7) * 300_000);
    const sha256 = await nameOf(content);
    const facts = { sha256, sizeBytes: content.length };
    if (await store.blob(sha256)) return { ...facts, from: content.length };
    const part = await store.openPartial(sha256, content.length);
    const from = part.note ? Number(new TextDecoder().decode(part.note)) : 0;
    for (let at = from, i = 1; at < content.length; at += 130_000, i += 1) {
      const to = Math.min(content.length, at + 130_000);
      await part.write(at, content.subarray(at, to));
      if (i % 2 === 0) continue;
      await part.save(new TextEncoder().encode(String(to)));
      console.log(`${kind} saved ${to}`);
    }
    await part.finish(sha256);
    return { ...facts, from };
  },

  /** Opens a part and works on it without end. */
  hold: async (kind: Kind, name: string, sha256: string): Promise<void> => {
    const part = await open(kind, name).openPartial(sha256, 1_000_000);
    await part.write(0, new Uint8Array(500_000).fill(5));
    await part.save(new TextEncoder().encode('held'));
    Object.assign(globalThis, { held: part });
  },

  /** The next step of who holds a part: what came of it. */
  holdOn: (): Promise<string> =>
    (globalThis as unknown as { held: { write(at: number, bytes: Uint8Array): Promise<void> } }).held
      .write(0, new Uint8Array(500_000))
      .then(
        () => 'written',
        (error: { code: string }) => error.code,
      ),

  /** Takes a part over: its note, and what its first half consists of. */
  takeOver: async (
    kind: Kind,
    name: string,
    sha256: string,
  ): Promise<{ note: string; bytes: readonly number[] }> => {
    const part = await open(kind, name).openPartial(sha256, 1_000_000);
    const found = new Set(await part.read(0, 500_000));
    const note = new TextDecoder().decode(part.note);
    Object.assign(globalThis, { held: part });
    return { note, bytes: [...found] };
  },

  count: async (kind: Kind, name: string, times: number): Promise<void> => {
    const store = open(kind, name);
    await Promise.all(
      Array.from({ length: times }, () =>
        store.updateRecord('count', (present) => toRecord(fromRecord(present) + 1)),
      ),
    );
  },

  put: async (kind: Kind, name: string, seed: number, sizeBytes: number): Promise<string> => {
    const content = contentOf(seed, sizeBytes);
    const blob = await open(kind, name).putBlob(await nameOf(content), inPieces(content, 65_536));
    return blob.sha256;
  },

  /** Begins a blob and never ends it. */
  hang: async (kind: Kind, name: string): Promise<void> => {
    const endless = async function* (): AsyncGenerator<Uint8Array, void> {
      yield new Uint8Array(5_000_000);
      console.log('hangs');
      await new Promise(() => {});
    };
    void open(kind, name).putBlob('a'.repeat(64), endless());
  },

  leftovers: leftoversIn,

  clear: async (kind: Kind, name: string): Promise<void> => {
    const store = open(kind, name);
    for (const { sha256 } of await store.describeBlobs()) await store.deleteBlob(sha256);
  },

  info: (kind: Kind, name: string) => open(kind, name).info(),

  /** Fills a small quota with blobs of a megabyte, of which the first `pinned` are pinned, then puts one more. */
  fill: async (kind: Kind, name: string, blobs: number, pinned: number) => {
    const store = open(kind, name);
    const names: string[] = [];
    for (let i = 0; i < blobs; i += 1) names.push(await api.put(kind, name, i, 1 << 20));
    await store.pin('test', names.slice(0, pinned));
    return names;
  },

  /** Puts what is all there, and says what came of it. */
  putWhole: async (kind: Kind, name: string, seed: number, sizeBytes: number): Promise<string> => {
    const content = contentOf(seed, sizeBytes);
    const sha256 = await nameOf(content);
    return open(kind, name)
      .putBlob(sha256, content)
      .then(
        () => sha256,
        (error: { code: string }) => error.code,
      );
  },
};

Object.assign(globalThis, { api });
