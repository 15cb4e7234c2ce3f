import { describe, expect, it } from 'vitest';
import { fromUtf8 } from '../../../src/core/bytes.ts';
import type { Store } from '../../../src/core/store.ts';
import { assembleInlay, type Inlay } from '../../../src/engine/inlay.ts';
import type { Model } from '../../../src/engine/model.ts';
import { webPlatform } from '../../../src/platform.ts';
import { createMemoryStore } from '../../../src/stores/memory.ts';
import { testPlatform, testStart } from '../platform.ts';
import { createRepository, serve, type FakeServer, type Repository } from '../publish/repository.ts';
import { fakeBackend } from './fakes.ts';

/** A store in which the next commit of a version takes until the test says that it is written. */
function slowStore(): Store & {
  hold(version: string): { readonly begun: Promise<void>; readonly end: () => void };
} {
  const store = createMemoryStore();
  let held: { readonly version: string; readonly write: () => Promise<void> } | undefined;
  return {
    ...store,
    updateRecord: async (name, change) => {
      const content = await store.updateRecord(name, change);
      const state = content && name.startsWith('sync-') ? (JSON.parse(fromUtf8(content)) as State) : {};
      if (held === undefined || state.committed?.['digits']?.version !== held.version) return content;
      const { write } = held;
      held = undefined;
      await write();
      return content;
    },
    hold: (version) => {
      let end = (): void => {};
      const written = new Promise<void>((resolve) => {
        end = resolve;
      });
      const begun = new Promise<void>((resolve) => {
        held = {
          version,
          write: () => {
            resolve();
            return written;
          },
        };
      });
      return { begun, end };
    },
  };
}

interface State {
  readonly committed?: Readonly<Record<string, { readonly version: string }>>;
}

/** A device that follows a server with two releases, of which the first one is rolled out. */
async function startDevice(): Promise<{
  readonly inlay: Inlay;
  readonly store: ReturnType<typeof slowStore>;
  readonly server: FakeServer;
  readonly rollOut: (version: '1.0.0' | '1.1.0') => Promise<void>;
}> {
  const repository: Repository = await createRepository(testPlatform());
  const server = serve(() => repository);
  const releases = {
    '1.0.0': await repository.release('digits', '1.0.0', Uint8Array.of(1)),
    '1.1.0': await repository.release('digits', '1.1.0', Uint8Array.of(2)),
  };
  await repository.rollOut(releases['1.0.0'], 100);
  const store = slowStore();
  const inlay = assembleInlay({
    platform: { ...webPlatform('test'), now: () => testStart, fetch: server.fetch },
    store,
    backends: [fakeBackend()],
    remote: () => import('../../../src/update/remote.ts'),
    engine: () => import('../../../src/engine/machine.ts'),
    pipelines: () => import('../../../src/engine/pipeline.ts'),
    sync: { url: 'https://sync.test', root: fromUtf8(repository.roots[0] ?? new Uint8Array()) },
    owned: [store],
  });
  return { inlay, store, server, rollOut: (version) => repository.rollOut(releases[version], 100) };
}

/** Resolves with the next version that answers. */
function nextOf(model: Model): Promise<string | undefined> {
  return new Promise((resolve) => {
    const stop = model.on('swapped', ({ to }) => {
      stop();
      resolve(to);
    });
  });
}

describe('a model that follows releases', () => {
  it('notices that a release is taken back while it is still being remembered', async () => {
    const { inlay, store, rollOut } = await startDevice();
    const model = await inlay.load({ name: 'digits' });
    const commit = store.hold('1.1.0');
    await rollOut('1.1.0');
    const swapped = nextOf(model);
    await inlay.checkForUpdates();
    expect(await swapped).toBe('1.1.0');
    await commit.begun;
    await rollOut('1.0.0');
    const back = nextOf(model);
    await inlay.checkForUpdates();
    commit.end();
    expect(await back).toBe('1.0.0');
    await inlay.close();
  });

  it('notices what is offered while the first release is still being remembered', async () => {
    const { inlay, store, rollOut } = await startDevice();
    const commit = store.hold('1.0.0');
    const loading = inlay.load({ name: 'digits' });
    await commit.begun;
    await rollOut('1.1.0');
    await inlay.checkForUpdates();
    commit.end();
    const model = await loading;
    expect(model.version).toBe('1.0.0');
    expect(await nextOf(model)).toBe('1.1.0');
    await inlay.close();
  });

  it('looks once more, however often it is told meanwhile, and then rests', async () => {
    const { inlay, store, server, rollOut } = await startDevice();
    const model = await inlay.load({ name: 'digits' });
    const commit = store.hold('1.1.0');
    await rollOut('1.1.0');
    const swapped = nextOf(model);
    await inlay.checkForUpdates();
    await swapped;
    await commit.begun;
    let looks = 0;
    const { blob } = store;
    store.blob = (sha256) => {
      looks += 1;
      return blob(sha256);
    };
    for (let check = 0; check < 5; check += 1) await inlay.checkForUpdates();
    expect(looks).toBe(0);
    commit.end();
    await expect.poll(() => looks).toBe(1);
    await inlay.checkForUpdates();
    expect(server.requests.at(-1)?.path).toMatch(/^\/v1\/tip/);
    await inlay.close();
    expect(looks).toBe(1);
    expect(model.version).toBe('1.1.0');
  });

  it('looks at nothing twice when it is loaded and nothing changes', async () => {
    const { inlay, store } = await startDevice();
    let looks = 0;
    const { blob } = store;
    store.blob = (sha256) => {
      looks += 1;
      return blob(sha256);
    };
    await inlay.load({ name: 'digits' });
    await inlay.close();
    expect(looks).toBe(1);
  });
});
