import { expect, it } from 'vitest';
import { toUtf8 } from '../../src/core/bytes.ts';
import { createSha256 } from '../../src/core/hash.ts';
import { createMemoryStore } from '../../src/stores/memory.ts';
import { testParts } from '../conformance/store-parts.ts';
import { testRoom, type RoomOptions } from '../conformance/store-room.ts';
import { nameOf, testStore, type OpenedStore } from '../conformance/store.ts';

const openMemory = async () => {
  const store = createMemoryStore();
  return { store, cleanup: () => store.close() };
};

testStore('the memory store', openMemory, (current) => {
  it('says that it does not outlive the process', () => {
    expect(current().info().kind).toBe('memory');
    expect(current().info().degraded).toMatch(/memory only/);
    expect(current().info().location).toBeUndefined();
  });

  it('says why it is used, if told', () => {
    const reason = 'The cache directory is read-only.';
    expect(createMemoryStore({ reason }).info().degraded).toBe(reason);
  });

  it('hashes with what the platform offers', async () => {
    let hashes = 0;
    const store = createMemoryStore({
      createSha256: () => {
        hashes += 1;
        return createSha256();
      },
    });
    await store.putBlob(nameOf(toUtf8('abc')), toUtf8('abc'));
    expect(hashes).toBe(1);
  });
});

const open = async (options: RoomOptions, former?: OpenedStore): Promise<OpenedStore> => {
  if (former) return former;
  const store = createMemoryStore(options);
  return { store, cleanup: () => store.close() };
};
testRoom('the memory store', open);
testParts('the memory store', open);
