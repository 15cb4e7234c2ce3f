import { describe, expect, it } from 'vitest';
import { createInlay } from 'inlay';
import { createMemoryStore } from 'inlay/stores/memory';
import {
  backends,
  codeOf,
  factorOf,
  nextOf,
  scale,
  startDevice,
  startWorld,
  update,
} from './follow-fixture.ts';

describe('a version that came with the app', () => {
  const reference = { name: 'digits', embedded: scale(7) };

  it('answers from the first start on, also offline, until a release has come in', async () => {
    const world = await startWorld();
    await world.network.goDown();
    const { inlay, directory } = await startDevice(world);
    const model = await inlay.load(reference);
    expect([model.name, model.version, await factorOf(model)]).toEqual(['digits', undefined, 7]);
    await expect(inlay.checkForUpdates()).rejects.toThrow();
    expect(await factorOf(model)).toBe(7);
    await world.network.comeBack();
    await world.ship(1);
    expect(await update(inlay, model)).toBe('swapped to 1');
    expect(await factorOf(model)).toBe(1);
    await inlay.close();
    await world.network.goDown();
    const again = await startDevice(world, { directory });
    expect(await factorOf(await again.inlay.load(reference))).toBe(1);
  });

  it('is not waited for by the network, and gives way to a release by itself', async () => {
    const world = await startWorld();
    await world.ship(1);
    const { inlay } = await startDevice(world);
    const model = await inlay.load(reference);
    expect(model.version).toBeUndefined();
    expect(await nextOf(model)).toBe('swapped to 1');
  });

  it('that does not open leaves it to the network', async () => {
    const world = await startWorld();
    const { inlay } = await startDevice(world);
    const broken = { name: 'digits', embedded: new Uint8Array(10) };
    expect(await codeOf(inlay.load(broken))).toBe('ERR_INLAY_MODEL_UNAVAILABLE');
    await world.ship(1);
    expect(await factorOf(await inlay.load(broken))).toBe(1);
  });

  it('that does not open is named beside what is wrong with the network', async () => {
    const world = await startWorld();
    await world.network.goDown();
    const { inlay } = await startDevice(world);
    await expect(inlay.load({ name: 'digits', embedded: new Uint8Array(10) })).rejects.toThrow(
      /cannot be reached.*The version that came with the app does not open: The model of 10 bytes/s,
    );
  });

  it('is all there is without a sync server', async () => {
    const inlay = createInlay({ backends, device: 'cpu', store: createMemoryStore() });
    const model = await inlay.load(reference);
    expect([model.name, model.version, await factorOf(model)]).toEqual(['digits', undefined, 7]);
    await inlay.close();
  });

  it('has to be a file', async () => {
    const world = await startWorld();
    const { inlay } = await startDevice(world);
    await expect(inlay.load({ name: 'digits', embedded: 5 as never })).rejects.toThrow(TypeError);
  });
});
