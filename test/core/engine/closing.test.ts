import { expect, it } from 'vitest';
import type { Platform } from '../../../src/core/platform.ts';
import { assembleInlay, type Inlay } from '../../../src/engine/inlay.ts';
import { webPlatform } from '../../../src/platform.ts';
import { createMemoryStore } from '../../../src/stores/memory.ts';
import { fakeBackend, type FakeBackendOptions } from './fakes.ts';

function startInlay(
  options: FakeBackendOptions,
  platform: Platform = webPlatform('test'),
): { readonly inlay: Inlay; readonly backend: ReturnType<typeof fakeBackend> } {
  const backend = fakeBackend(options);
  const inlay = assembleInlay({
    platform,
    store: createMemoryStore(),
    backends: [backend],
    remote: () => import('../../../src/update/remote.ts'),
    engine: () => import('../../../src/engine/machine.ts'),
    pipelines: () => import('../../../src/engine/pipeline.ts'),
    owned: [],
  });
  return { inlay, backend };
}

function deferred(): { readonly promise: Promise<void>; readonly resolve: () => void } {
  let resolve = (): void => {};
  const promise = new Promise<void>((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}

it('waits for a load that nobody waits for any more, so that nothing happens afterwards', async () => {
  const gate = deferred();
  const running = deferred();
  const { inlay, backend } = startInlay({
    onRun: async (feeds) => {
      running.resolve();
      await gate.promise;
      return { y: feeds['x'] as never };
    },
  });
  const controller = new AbortController();
  const loading = inlay.load(new Uint8Array(1), { signal: controller.signal });
  await running.promise;
  controller.abort(new Error('The user left.'));
  await expect(loading).rejects.toThrow('The user left.');
  let isClosed = false;
  const closing = inlay.close().then(() => {
    isClosed = true;
  });
  await new Promise((resolve) => setTimeout(resolve));
  expect(isClosed).toBe(false);
  gate.resolve();
  await closing;
  expect(backend.open.size).toBe(0);
});

it('does not wait for a model that is still coming in over the network', async () => {
  const asked = deferred();
  const { inlay } = startInlay(
    {},
    {
      ...webPlatform('test'),
      fetch: () => {
        asked.resolve();
        return new Promise(() => {});
      },
    },
  );
  const loading = inlay.load('https://models.example/a.onnx');
  const code = loading.catch((error: { code: string }) => error.code);
  await asked.promise;
  await inlay.close();
  expect(await code).toBe('ERR_INLAY_CLOSED');
});
