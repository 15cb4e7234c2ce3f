/** Releases with a manifest: variants, golden inputs, patches, and what came with the app. */
import { describe, expect, it } from 'vitest';
import type { ExecutionProvider } from '../../../src/core/backend.ts';
import type { Store } from '../../../src/core/store.ts';
import { Tensor } from '../../../src/core/tensor.ts';
import { rejected } from '../../../src/update/fault.ts';
import { writeGolden } from '../../../src/update/golden.ts';
import type { Patcher } from '../../../src/update/patcher.ts';
import {
  createWorld,
  embed,
  filesIn,
  hashOf,
  hour,
  publish,
  startApp,
  until,
  version,
  withdraw,
  type World,
} from './updater-fixture.ts';
import { testPlatform } from '../platform.ts';

const [one, two, three] = [version(1), version(2), version(3)];
const golden = {
  bytes: writeGolden([
    {
      inputs: { x: new Tensor('float32', [1], Float32Array.of(1)) },
      outputs: { y: new Tensor('float32', [1], Float32Array.of(2)) },
    },
  ]),
  tolerance: { absoluteE6: 1000, relativeE6: 0 },
};
const downloads = ({ server }: World): string[] =>
  server.requests
    .splice(0)
    .flatMap(({ path }) => /^\/v1\/targets\/.*\/([0-9a-f]{64})\./.exec(path)?.[1] ?? []);

describe('a release with variants', () => {
  const files = [
    { variant: 'fp32', bytes: one },
    { variant: 'webgpu', bytes: two, requires: { providers: ['webgpu'], features: ['f16'] } },
    { variant: 'int8', bytes: three, requires: { providers: ['cpu'] } },
  ];
  const gpu: ExecutionProvider = { name: 'webgpu', device: 'gpu', features: ['f16'] };
  const cpu: ExecutionProvider = { name: 'cpu', device: 'cpu' };

  it.each<[string, readonly ExecutionProvider[], string, Uint8Array]>([
    ['has what the first one requires', [cpu, gpu], 'webgpu', two],
    ['lacks a feature of the first one', [cpu, { ...gpu, features: [] }], 'int8', three],
    ['refuses its provider', [cpu, { ...gpu, refusal: 'It is software.' }], 'int8', three],
    ['has nothing that any requires', [{ name: 'tpu', device: 'npu' }], 'fp32', one],
  ])('brings the one file that fits a device which %s', async (_, providers, variant, bytes) => {
    const world = await createWorld();
    await world.repository.rollOut(await publish(world, '1.0.0', { files }), 100);
    const app = startApp(world, { providers: async () => providers });
    const model = await app.follow();
    expect(model.present()).toMatchObject({ version: '1.0.0', variant, source: { bytes } });
    // The manifest is read once, and is no model.
    expect(await filesIn(app.store)).toEqual([hashOf(bytes)]);
    expect((await app.state()).trial).toMatchObject({ variant, file: { sha256: hashOf(bytes) } });
    await app.client.close();
  });

  it('is one release whatever its file: it is committed, and starts again', async () => {
    const world = await createWorld();
    await world.repository.rollOut(await publish(world, '1.0.0', { files }), 100);
    const app = startApp(world);
    const model = await app.follow();
    await app.prove(model);
    await app.update();
    expect(model.answered).toEqual(['1.0.0']);
    expect((await app.state()).committed).toMatchObject({
      variant: 'int8',
      release: { sha256: hashOf(one) },
    });
    await app.client.close();
    downloads(world);
    const next = startApp(world, { store: app.store });
    expect((await next.follow()).present()).toMatchObject({ variant: 'int8', source: { bytes: three } });
    await next.update();
    expect(downloads(world)).toEqual([]);
    await next.client.close();
  });

  it('is fetched again as the variant that was lost', async () => {
    const world = await createWorld();
    await world.repository.rollOut(await publish(world, '1.0.0', { files }), 100);
    const app = startApp(world);
    const model = await app.follow();
    await app.prove(model);
    await app.client.close();
    await app.store.deleteBlob(hashOf(three));
    const next = startApp(world, { store: app.store });
    expect((await next.follow()).present()).toMatchObject({ variant: 'int8', source: { bytes: three } });
    expect((await next.state()).running).toBe('committed');
    await next.client.close();
  });
});

describe('a variant', () => {
  const files = [
    { variant: 'fp32', bytes: one },
    { variant: 'int8', bytes: three, requires: { providers: ['cpu'] } },
  ];

  it('that is too large for the device is passed over', async () => {
    const world = await createWorld();
    const wide = { variant: 'wide', bytes: version(9, 900), requires: { providers: ['cpu'] } };
    const release = await publish(world, '1.1.0', { files: [{ variant: 'fp32', bytes: one }, wide] });
    await world.repository.rollOut(release, 100);
    const app = startApp(world, { maxModelBytes: 500 });
    expect((await app.follow()).present()).toMatchObject({ version: '1.1.0', variant: 'fp32' });
    expect((await app.state()).rejected).toEqual([]);
    await app.client.close();
  });

  it('that is lost and does not suit the device any more is replaced by the reference', async () => {
    const world = await createWorld();
    await world.repository.rollOut(await publish(world, '1.0.0', { files }), 100);
    const app = startApp(world);
    await app.prove(await app.follow());
    await app.client.close();
    await app.store.deleteBlob(hashOf(three));
    const next = startApp(world, {
      store: app.store,
      providers: async () => [{ name: 'webgpu', device: 'gpu' }],
    });
    const model = await next.follow();
    expect(model.present()).toMatchObject({ version: '1.0.0', variant: 'fp32' });
    await next.prove(model);
    expect((await next.state()).committed).toMatchObject({ variant: 'fp32' });
    await next.client.close();
  });

  it('that is committed and works no more makes way for the reference, and the release stays', async () => {
    const world = await createWorld();
    const embedded = embed(two, await publish(world, '0.9.0', { files: [{ variant: 'fp32', bytes: two }] }));
    await world.repository.rollOut(await publish(world, '1.0.0', { files }), 100);
    const app = startApp(world);
    const first = await app.follow({}, embedded);
    await app.update();
    await app.prove(first);
    await app.client.close();
    const onOpen = ({ variant }: { readonly variant: string | undefined }): void => {
      if (variant === 'int8') throw rejected('golden', 'It answers wrongly.');
    };
    const versions: (string | undefined)[] = [];
    for (let start = 0; start < 2; start += 1) {
      const next = startApp(world, { store: app.store });
      const model = await next.follow({ onOpen }, embedded);
      await next.update();
      versions.push(`${model.version()} ${model.present()?.variant}`);
      if (start === 1)
        expect((await next.state()).rejected).toMatchObject([{ sha256: hashOf(three), reason: 'golden' }]);
      await next.client.close();
    }
    expect(versions).toEqual(['0.9.0 undefined', '1.0.0 fp32']);
  });

  it('that the store forgets is fetched once, also if it was rejected long ago', async () => {
    const world = await createWorld();
    const embedded = embed(two, await publish(world, '0.9.0', { files: [{ variant: 'fp32', bytes: two }] }));
    await world.repository.rollOut(await publish(world, '1.0.0', { files }), 100);
    const app = startApp(world);
    const onOpen = ({ variant }: { readonly variant: string | undefined }): void => {
      if (variant === 'int8') throw rejected('golden', 'It answers wrongly.');
    };
    await app.follow({ onOpen }, embedded);
    await app.update();
    expect((await app.state()).rejected).toMatchObject([{ sha256: hashOf(three) }]);
    await app.client.close();
    const forgetful: Store = {
      ...app.store,
      blob: async (sha256) => (sha256 === hashOf(three) ? undefined : app.store.blob(sha256)),
    };
    await app.store.deleteBlob(hashOf(three));
    downloads(world);
    const platform = testPlatform({ fetch: world.server.fetch });
    platform.advance(25 * hour);
    const second = await publish(world, '1.1.0', { files: files.map((file) => file) });
    await world.repository.rollOut(second, 100);
    const next = startApp(world, { store: forgetful, platform });
    await next.follow({}, embedded);
    await next.update();
    expect(downloads(world).filter((sha256) => sha256 === hashOf(three))).toHaveLength(1);
    await next.client.close();
  });
});

describe('a manifest', () => {
  it('that is of another release does not count', async () => {
    const world = await createWorld();
    const { repository } = world;
    const first = await publish(world, '1.0.0', { files: [{ variant: 'fp32', bytes: one }] });
    const second = await publish(world, '1.1.0', { files: [{ variant: 'fp32', bytes: two }] });
    const { targets } = repository.targetsBody;
    const [manifest] = [targets[first.path]?.custom?.['manifest']];
    repository.targetsBody = {
      ...repository.targetsBody,
      version: repository.targetsBody.version + 1,
      targets: {
        ...targets,
        [second.path]: {
          ...targets[second.path],
          custom: { ...targets[second.path]?.custom, manifest },
        } as never,
      },
    };
    await repository.rollOut(second, 100);
    const app = startApp(world);
    await expect(app.follow()).rejects.toMatchObject({ cause: { code: 'ERR_INLAY_PLAN_INVALID' } });
    expect(await filesIn(app.store)).toEqual([]);
    await app.client.close();
  });

  it('that was changed on the way does not count, and nothing of it is kept', async () => {
    const world = await createWorld();
    const release = await publish(world, '1.0.0', { files: [{ variant: 'fp32', bytes: one }] });
    await world.repository.rollOut(release, 100);
    world.server.intercept = (path) => (path.includes('release.json') ? new Response('{"v":1}') : undefined);
    const app = startApp(world);
    await expect(app.follow()).rejects.toMatchObject({ cause: { code: 'ERR_INLAY_LENGTH' } });
    world.server.intercept = () => undefined;
    expect(await filesIn(app.store)).toEqual([]);
    expect((await app.follow()).version()).toBe('1.0.0');
    await app.client.close();
  });
});

describe('golden inputs', () => {
  const files = [{ variant: 'fp32', bytes: two }];

  it('come with the release, go to those who try it, and are not asked again', async () => {
    const world = await createWorld();
    await world.repository.rollOut(await publish(world, '1.0.0', { files, golden }), 100);
    const proven: (string | undefined)[] = [];
    const app = startApp(world, {
      prove: async (target) => {
        expect(target.golden?.tolerance).toEqual(golden.tolerance);
        expect(target.golden?.cases[0]?.outputs['y']?.data).toEqual(Float32Array.of(2));
        proven.push(target.version);
      },
    });
    const model = await app.follow();
    expect(proven).toEqual(['1.0.0']);
    expect(await filesIn(app.store)).toHaveLength(2);
    await app.client.close();
    const next = startApp(world, {
      store: app.store,
      prove: async () => Promise.reject(new Error('Again.')),
    });
    const again = await next.follow();
    expect(again.present()).toMatchObject({ isNew: false, golden: undefined });
    expect(model.present()?.isNew).toBe(true);
    await next.client.close();
  });

  it.each(['where it can do no harm', 'in its own place'])(
    'that it gets wrong %s reject it',
    async (where) => {
      const world = await createWorld();
      await world.ship('1.0.0', one);
      const wrong = rejected('golden', 'output "y" differs');
      const app = startApp(world, {
        prove: async ({ version: name }) => {
          if (name === '1.1.0' && where !== 'in its own place') throw wrong;
        },
      });
      let opened = 0;
      const model = await app.follow({
        onOpen: ({ version: name }) => {
          if (name !== '1.1.0') return;
          opened += 1;
          throw wrong;
        },
      });
      await app.prove(model);
      await world.repository.rollOut(await publish(world, '1.1.0', { files, golden }), 100);
      await app.update();
      expect(model.answered).toEqual(['1.0.0']);
      expect(opened).toBe(where === 'in its own place' ? 1 : 0);
      expect((await app.state()).rejected).toMatchObject([
        { version: '1.1.0', reason: 'golden', detail: 'output "y" differs' },
      ]);
      expect(model.errors).toMatchObject([{ code: 'ERR_INLAY_UPDATE_REJECTED' }]);
      await app.client.close();
    },
  );

  it('that were lost before the trial are fetched again: nothing is tried without them', async () => {
    const world = await createWorld();
    await world.ship('1.0.0', one);
    const app = startApp(world, { policy: { activate: 'manual' } });
    const model = await app.follow();
    await app.prove(model);
    await world.repository.rollOut(await publish(world, '1.1.0', { files, golden }), 100);
    await app.update();
    expect((await app.state()).trial?.phase).toBe('staged');
    await app.store.deleteBlob(hashOf(golden.bytes));
    expect(await app.client.updater('digits').activate()).toBe(false);
    await app.update();
    await until(() => true);
    expect(await app.client.updater('digits').activate()).toBe(true);
    expect(model.present()?.golden?.cases).toHaveLength(1);
    await app.client.close();
  });
});

describe('a patch', () => {
  /** What follows the base: enough of a format to test with. */
  const patcher: Patcher = {
    codec: 'test',
    apply: async function* (base, patch) {
      yield await base.bytes();
      yield await patch.bytes();
    },
  };
  const end = Uint8Array.of(7, 7, 7);
  const longer = Uint8Array.from([...one, ...end]);
  const files = [{ variant: 'fp32', bytes: longer, patch: { from: hashOf(one), bytes: end } }];

  it('starts from what is committed', async () => {
    const world = await createWorld();
    await world.ship('1.0.0', one);
    const app = startApp(world, { patchers: [patcher] });
    const model = await app.follow();
    await app.prove(model);
    await world.repository.rollOut(await publish(world, '1.1.0', { files }), 100);
    downloads(world);
    await app.update();
    expect(model.present()).toMatchObject({ version: '1.1.0', source: { bytes: longer } });
    expect(downloads(world)).toContain(hashOf(end));
    expect(await app.events()).toContain('verified patch');
    await app.client.close();
  });

  it('starts from what came with the app, which is lent to the store for it', async () => {
    const world = await createWorld();
    await world.repository.rollOut(await publish(world, '1.1.0', { files }), 100);
    const app = startApp(world, { patchers: [patcher] });
    const model = await app.follow({}, embed(one));
    await until(() => model.version() === '1.1.0');
    const asked = downloads(world);
    expect(asked).toContain(hashOf(end));
    expect(asked).not.toContain(hashOf(longer));
    expect(model.present()?.source.bytes).toEqual(longer);
    await app.client.close();
  });

  it('that does not lead to the signed file makes way for the whole one', async () => {
    const world = await createWorld();
    await world.ship('1.0.0', one);
    const lying: Patcher = {
      ...patcher,
      apply: async function* () {
        yield new Uint8Array(longer.length);
      },
    };
    const app = startApp(world, { patchers: [lying] });
    const model = await app.follow();
    await app.prove(model);
    await world.repository.rollOut(await publish(world, '1.1.0', { files }), 100);
    await app.update();
    expect(model.present()?.source.bytes).toEqual(longer);
    await app.client.close();
  });
});

describe('what came with the app', () => {
  it('counts as the release that it is: a rollout of the same changes nothing', async () => {
    const world = await createWorld();
    const release = await world.ship('1.0.0', one);
    const app = startApp(world);
    const model = await app.follow({}, embed(one, release));
    await app.update();
    expect(model.answered).toEqual(['1.0.0']);
    const { running, trial } = await app.state();
    expect([running, trial]).toEqual(['embedded', undefined]);
    expect(downloads(world)).toEqual([]);
    await app.client.close();
  });

  it('is what a rollout that was taken back leads to', async () => {
    const world = await createWorld();
    const release = await world.ship('1.0.0', one);
    const app = startApp(world);
    const model = await app.follow({}, embed(one, release));
    // The first check is over before there is more; the next would join it.
    await app.update();
    await world.ship('1.1.0', two);
    await app.update();
    await until(() => model.version() === '1.1.0');
    await app.prove(model);
    await world.change({ state: 'rolledback' });
    downloads(world);
    await app.update();
    expect(model.answered).toEqual(['1.0.0', '1.1.0', '1.0.0']);
    expect(downloads(world)).toEqual([]);
    await app.client.close();
  });

  it('and was withdrawn gives way to a release, and is not gone back to', async () => {
    const world = await createWorld();
    const release = await world.ship('1.0.0', one);
    await withdraw(world, { revoked: [1] });
    await world.ship('1.1.0', two);
    const app = startApp(world);
    const model = await app.follow({}, embed(one, release));
    await until(() => model.version() === '1.1.0');
    await app.prove(model);
    await world.change({ state: 'rolledback' });
    await app.update();
    expect(model.version()).toBe('1.1.0');
    await app.client.close();
    // Also without network.
    const next = startApp(world, { store: app.store });
    expect((await next.follow({}, embed(one, release))).answered[0]).toBe('1.1.0');
    await next.client.close();
  });

  it('and was withdrawn answers where there is nothing else', async () => {
    const world = await createWorld();
    const release = await world.ship('1.0.0', one);
    await withdraw(world, { revoked: [1] });
    const app = startApp(world);
    const model = await app.follow({}, embed(one, release));
    await app.update();
    expect(model.answered).toEqual(['1.0.0']);
    await app.client.close();
    const next = startApp(world, { store: app.store });
    expect((await next.follow({}, embed(one, release))).answered).toEqual(['1.0.0']);
    await next.client.close();
  });

  it('and is newer than what an earlier app had committed takes part from where it is', async () => {
    const world = await createWorld();
    await world.ship('1.0.0', one);
    const app = startApp(world);
    const model = await app.follow();
    await app.prove(model);
    await app.client.close();
    const release = await world.ship('1.1.0', two);
    downloads(world);
    const next = startApp(world, { store: app.store });
    const after = await next.follow({}, embed(two, release));
    await next.update();
    await until(() => after.version() === '1.1.0');
    expect(downloads(world)).toEqual([]);
    await next.client.close();
  });
});
