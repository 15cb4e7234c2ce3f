import { describe, expect, it } from 'vitest';
import { toUtf8 } from '../../../src/core/bytes.ts';
import type { FetchInit } from '../../../src/core/platform.ts';
import type { Tensor } from '../../../src/core/tensor.ts';
import { createMemoryStore } from '../../../src/stores/memory.ts';
import { titleOfClass } from '../../../src/telemetry/device-class.ts';
import type { TelemetryOptions } from '../../../src/telemetry/options.ts';
import type { ReportWindow } from '../../../src/telemetry/report.ts';
import {
  answerOf,
  callOften,
  codeOf,
  createWorld,
  made,
  startDevice,
  type Device,
  type DeviceOptions,
  type World,
} from '../engine/device.ts';
import { testPlatform } from '../platform.ts';
import { hashOf, publish } from '../update/updater-fixture.ts';
import { createReportServer, type ReportServer } from './report-server.ts';

const minute = 60_000;

interface Fleet {
  readonly world: World;
  readonly server: ReportServer;
  start(telemetry?: TelemetryOptions, options?: DeviceOptions): Device;
}

async function createFleet(): Promise<Fleet> {
  const world = await createWorld();
  const server = createReportServer(world.server.fetch);
  return {
    world,
    server,
    start: (telemetry = { consent: 'necessary' }, options = {}) =>
      startDevice(world, { fetch: server.fetch, telemetry, ...options }),
  };
}

/** Sums of some counts by version and place in a rollout. */
function sums(server: ReportServer): Record<string, Record<string, number>> {
  const all: Record<string, Record<string, number>> = {};
  for (const { ver, ro, arm, n, ok, act = 0, com = 0, cold = 0, fatal = 0, rej = {} } of server.windows()) {
    const name = ro === undefined ? ver : `${ver} ${arm ?? 'shadow'}`;
    const sum = (all[name] ??= {});
    const counts = { n, ok, act, com, cold, fatal, ...rej };
    for (const [key, count] of Object.entries(counts)) if (count > 0) sum[key] = (sum[key] ?? 0) + count;
  }
  return all;
}

function last(server: ReportServer): ReportWindow | undefined {
  return server.windows().at(-1);
}

/** Runs a version until it is committed. */
async function settleOn(device: Device, calls = 20): Promise<Awaited<ReturnType<Device['load']>>> {
  const model = await device.load();
  await callOften(model, calls);
  await device.pass(2 * minute);
  return model;
}

describe('a device that may tell', () => {
  it('counts calls, opens and activations by version', async () => {
    const { world, server, start } = await createFleet();
    await world.ship('1.0.0', made(2));
    const device = start();
    const model = await device.load();
    await callOften(model, 7);
    await device.inlay.telemetry.flush();
    expect(sums(server)).toEqual({ '1.0.0': { n: 7, ok: 7, act: 1, cold: 1 } });
    expect(server.reports[0]).toMatchObject({ app: 'stable', rt: 'test', be: 'cpu', consent: 'necessary' });
    await device.inlay.close();
  });

  it.each([
    ['web', 'browser', 'Browser on a computer'],
    ['web on iOS', 'browser', 'Browser on a phone'],
    ['node', 'node', 'Server or desktop app, more cores'],
    ['workerd', 'workerd', 'Edge worker'],
    ['react-native', 'react-native', 'Mobile app'],
  ])('is classed by what %s is', async (runtime, rt, title) => {
    const { world, server, start } = await createFleet();
    await world.ship('1.0.0', made(2));
    const device = start(undefined, { platform: { ...testPlatform(), runtime, cores: 8 } });
    await callOften(await device.load(), 2);
    await device.inlay.telemetry.flush();
    expect(server.reports.map((report) => [report.rt, titleOfClass(report.cls)])).toEqual([[rt, title]]);
    await device.inlay.close();
  });

  it('counts runs, the time that calls wait for them, processor time, and the bytes of updates', async () => {
    const { world, server, start } = await createFleet();
    await world.ship('1.0.0', made(2));
    let processorMs = 1000;
    const device = start(
      { consent: 'necessary' },
      { platform: Object.assign(testPlatform(), { processorMs: () => processorMs }) },
    );
    const model = await device.load();
    await callOften(model, 7);
    processorMs += 250;
    await device.inlay.telemetry.flush();
    const [window] = server.windows();
    expect(window).toMatchObject({ n: 7, ex: 7, g: { cpu: 250 } });
    const waited = window?.h?.['queue']?.b ?? [];
    const zero = window?.h?.['queue']?.z ?? 0;
    expect(waited.slice(1).reduce((sum, count) => sum + Math.max(0, count), zero)).toBe(7);
    // The model that came before anything ran counts as well.
    expect(window?.g?.net).toBeGreaterThanOrEqual(made(2).length);
    await device.inlay.close();
  });

  it('says of a candidate what ran before it, in which arm it is, and how its trial ended', async () => {
    const { world, server, start } = await createFleet();
    await world.ship('1.0.0', made(2));
    const device = start();
    const model = await settleOn(device, 150);
    await world.ship('1.1.0', made(3), { state: 'ramp', bp: 10_000, stage: 2 });
    await device.update();
    expect(await answerOf(model)).toEqual(['1.1.0', 3]);
    await callOften(model);
    await device.pass(2 * minute);
    await device.inlay.telemetry.flush();
    expect(sums(server)).toMatchObject({
      '1.0.0': { n: 150, com: 1 },
      '1.1.0 t': { n: 21, act: 1, com: 1, cold: 1 },
    });
    const windows = server.windows().filter(({ arm }) => arm === 't');
    for (const { st, bl } of windows) expect([st, bl]).toMatchObject([2, { n: 150, e: 0 }]);
    await device.inlay.close();
  });

  it('counts as control where the plan says so, with its own baseline', async () => {
    const { world, server, start } = await createFleet();
    await world.ship('1.0.0', made(2));
    const device = start();
    const model = await settleOn(device, 120);
    await world.ship('1.1.0', made(3), { state: 'ramp', bp: 1, ctl: 9999 });
    await device.update();
    await callOften(model, 5);
    await device.inlay.telemetry.flush();
    expect(sums(server)).toMatchObject({ '1.0.0 c': { n: 5, ok: 5 } });
    expect(last(server)?.bl?.n).toBe(120);
    await device.inlay.close();
  });

  it('counts in no arm where it only waits, and once a rollout is complete', async () => {
    const { world, server, start } = await createFleet();
    await world.ship('1.0.0', made(2));
    const device = start();
    const model = await settleOn(device);
    await world.ship('1.1.0', made(3), { state: 'ramp', bp: 1, ctl: 0 });
    await device.update();
    await callOften(model, 5);
    await world.change({ state: 'complete', bp: 10_000 });
    await device.update();
    await callOften(model, 5);
    await device.inlay.telemetry.flush();
    expect(Object.keys(sums(server))).toEqual(['1.0.0', '1.1.0']);
    await device.inlay.close();
  });

  it('has told of an activation before the candidate answers', async () => {
    const { world, server, start } = await createFleet();
    await world.ship('1.0.0', made(2));
    const device = start();
    await settleOn(device);
    await world.ship('1.1.0', made(3, 'hangsAtOpen'), { state: 'ramp', bp: 10_000 });
    await device.update();
    // It never opens, and the server knows that it was about to.
    expect(sums(server)['1.1.0 t']).toEqual({ act: 1 });
    await device.inlay.close();
  });

  it('activates although the server for reports answers nothing', async () => {
    const { world, server, start } = await createFleet();
    await world.ship('1.0.0', made(2));
    const device = start();
    const model = await settleOn(device);
    server.before = () => new Promise(() => {});
    await world.ship('1.1.0', made(3), { state: 'ramp', bp: 10_000 });
    await device.update();
    expect((await answerOf(model))[0]).toBe('1.0.0');
    await device.pass(2000);
    expect((await answerOf(model))[0]).toBe('1.1.0');
    const closed = device.inlay.close();
    await device.pass(5000);
    await device.pass(40_000);
    await closed;
  });

  it('tells at once that a candidate was rejected, and why', async () => {
    const { world, server, start } = await createFleet();
    await world.ship('1.0.0', made(2));
    const device = start();
    await settleOn(device);
    await world.ship('1.1.0', made(3, 'refusesToOpen'), { state: 'ramp', bp: 10_000 });
    await device.update();
    await device.pass(0);
    expect(sums(server)['1.1.0 t']).toEqual({ act: 1, open: 1 });
    await device.inlay.close();
  });

  it('that dies of a candidate tells so at its next start', async () => {
    const { world, server, start } = await createFleet();
    await world.ship('1.0.0', made(2));
    const store = createMemoryStore();
    const first = start({ consent: 'necessary' }, { store, run: 'a' });
    await settleOn(first);
    await world.ship('1.1.0', made(3, 'hangsAtOpen'), { state: 'ramp', bp: 10_000, stage: 1 });
    await first.update();
    const second = start({ consent: 'necessary' }, { store, run: 'b', platform: testPlatform({ seed: 7 }) });
    await second.load();
    await second.inlay.telemetry.flush();
    expect(sums(server)['1.1.0 t']).toMatchObject({ act: 1, fatal: 1 });
    expect(new Set(server.reports.map(({ dev }) => dev)).size).toBe(1);
    await second.inlay.close();
  });

  it('that is killed loses what it counted since it wrote last, and no more', async () => {
    const { world, server, start } = await createFleet();
    await world.ship('1.0.0', made(2));
    const store = createMemoryStore();
    const first = start({ consent: 'necessary' }, { store, run: 'a' });
    const model = await first.load();
    await callOften(model, 10);
    await first.pass(31_000);
    await callOften(model, 3);
    const second = start({ consent: 'necessary' }, { store, run: 'b', platform: testPlatform({ seed: 7 }) });
    await second.load();
    await second.inlay.telemetry.flush();
    expect(sums(server)['1.0.0']?.['n']).toBe(10);
    await second.inlay.close();
  });

  it('loses no call while it is offline for a day, and tells in few reports then', async () => {
    const { world, server, start } = await createFleet();
    await world.ship('1.0.0', made(2));
    const device = start();
    const model = await device.load();
    server.before = () => Promise.reject(new TypeError('fetch failed'));
    for (let hour = 0; hour < 24; hour += 3) {
      await callOften(model, 15);
      device.platform.advance(180 * minute);
      await device.pass(0);
    }
    server.before = () => undefined;
    await device.inlay.telemetry.flush();
    await device.inlay.telemetry.flush();
    expect(sums(server)['1.0.0']?.['n']).toBe(120);
    expect(server.reports.length).toBeLessThan(12);
    await device.inlay.close();
  });

  it('reports what is left when it is closed', async () => {
    const { world, server, start } = await createFleet();
    await world.ship('1.0.0', made(2));
    const device = start();
    await callOften(await device.load(), 4);
    await device.inlay.close();
    expect(server.calls()).toBe(4);
  });

  it('reports by itself, at the pace that the plan and the server ask for', async () => {
    const { world, server, start } = await createFleet();
    await world.ship('1.0.0', made(2), { report: { everyS: 60 } });
    const device = start();
    const model = await device.load();
    await callOften(model, 1);
    await device.pass(minute);
    expect(server.reports).toHaveLength(1);
    server.next = 3600;
    await callOften(model, 1);
    await device.pass(minute);
    expect(server.reports).toHaveLength(2);
    await callOften(model, 1);
    for (let at = 0; at < 10; at += 1) await device.pass(minute / 2);
    const before = server.reports.length;
    await device.pass(3600_000);
    expect([before, server.calls()]).toEqual([2, 3]);
    await device.inlay.close();
  });
});

describe('a server that asks for patience', () => {
  it('is left alone for as long as it asks, and then hears of everything once', async () => {
    const { world, server, start } = await createFleet();
    await world.ship('1.0.0', made(2));
    const device = start();
    await callOften(await device.load(), 3);
    let asked = 0;
    server.before = () => {
      asked += 1;
      return new Response(null, { status: 429, headers: { 'retry-after': '300' } });
    };
    await device.inlay.telemetry.flush();
    await device.pass(299_000);
    expect(asked).toBe(1);
    server.before = () => undefined;
    // At most a tenth is added to what it asked for.
    await device.pass(31_000);
    expect([server.calls(), server.duplicates()]).toEqual([3, 0]);
    await device.inlay.close();
  });

  it('that cannot be reached is tried again sooner at first than later', async () => {
    const { world, server, start } = await createFleet();
    await world.ship('1.0.0', made(2));
    const device = start();
    await callOften(await device.load(), 3);
    let asked = 0;
    server.before = () => {
      asked += 1;
      return Promise.reject(new TypeError('fetch failed'));
    };
    await device.inlay.telemetry.flush();
    for (let at = 0; at < 6; at += 1) await device.pass(10_000);
    const inMinute = asked;
    for (let at = 0; at < 8; at += 1) await device.pass(60 * minute);
    expect([inMinute >= 3, asked - inMinute < 9]).toEqual([true, true]);
    await device.inlay.close();
  });
});

describe('failures', () => {
  it('are counted by code, and calls that are given up are not', async () => {
    const { world, server, start } = await createFleet();
    await world.ship('1.0.0', made(2, 'fails'));
    const device = start();
    const model = await device.load();
    expect(await codeOf(model.run({ x: [1, 2] }))).toBe('ERR_INLAY_RUN_FAILED');
    const given = new AbortController();
    const call = model.run({ x: [1, 2] }, { signal: given.signal });
    given.abort(new Error('Nobody needs it.'));
    await codeOf(call);
    await device.inlay.telemetry.flush();
    expect(server.windows()).toMatchObject([{ n: 1, ok: 0, err: { run_failed: 1 } }]);
    await device.inlay.close();
  });

  it('of telemetry never reach a call', async () => {
    const { world, server, start } = await createFleet();
    await world.ship('1.0.0', made(2));
    const disk = createMemoryStore();
    const isOurs = (name: string): boolean => name.startsWith('telemetry');
    const store = {
      ...disk,
      readRecord: (name: string) => (isOurs(name) ? Promise.reject(new Error('No.')) : disk.readRecord(name)),
      updateRecord: (name: string, change: Parameters<typeof disk.updateRecord>[1]) =>
        isOurs(name) ? Promise.reject(new Error('No.')) : disk.updateRecord(name, change),
    };
    const device = start({ consent: 'full' }, { store });
    const model = await device.load();
    await callOften(model, 3);
    await device.pass(minute);
    await device.inlay.telemetry.flush();
    expect([await answerOf(model), server.reports.length]).toEqual([['1.0.0', 2], 0]);
    expect((await device.inlay.telemetry.state())?.lastError).toBe('No.');
    await device.inlay.close();
  });
});

describe('consent', () => {
  const records = async (device: Device): Promise<string[]> => {
    const found: string[] = [];
    for (const name of ['telemetry', 'telemetry-0', 'telemetry-history'])
      if ((await device.store.readRecord(name)) !== undefined) found.push(name);
    return found;
  };

  it('that was not given stores and sends nothing', async () => {
    const { world, server, start } = await createFleet();
    await world.ship('1.0.0', made(2));
    const device = start({});
    await callOften(await device.load(), 3);
    await device.pass(20 * minute);
    await device.inlay.telemetry.flush();
    await device.inlay.close();
    expect([await records(device), server.reports, server.forgotten]).toEqual([[], [], []]);
  });

  it('counts from when it is given, and not what was before', async () => {
    const { world, server, start } = await createFleet();
    await world.ship('1.0.0', made(2));
    const device = start({});
    const model = await device.load();
    await callOften(model, 3);
    await device.inlay.telemetry.setConsent('necessary');
    await callOften(model, 2);
    await device.inlay.telemetry.flush();
    expect([server.calls(), device.inlay.telemetry.consent()]).toEqual([2, 'necessary']);
    await device.inlay.close();
  });

  it('that is taken back deletes what was kept, has the server forget it, and draws another name', async () => {
    const { world, server, start } = await createFleet();
    await world.ship('1.0.0', made(2));
    const device = start();
    const model = await device.load();
    await callOften(model, 3);
    await device.inlay.telemetry.flush();
    const [first] = server.reports;
    await callOften(model, 3);
    await device.inlay.telemetry.setConsent('unset');
    expect(server.forgotten).toEqual([first?.dev]);
    await device.pass(20 * minute);
    expect(server.calls()).toBe(3);
    await device.inlay.telemetry.setConsent('necessary');
    await callOften(model, 1);
    await device.inlay.telemetry.flush();
    expect(server.calls()).toBe(4);
    expect(server.reports.at(-1)?.dev).not.toBe(first?.dev);
    await device.inlay.close();
  });

  it('asks to be forgotten again where nobody has heard it', async () => {
    const { world, server, start } = await createFleet();
    await world.ship('1.0.0', made(2));
    const device = start();
    await callOften(await device.load(), 3);
    await device.inlay.telemetry.flush();
    server.before = () => Promise.reject(new TypeError('fetch failed'));
    await device.inlay.telemetry.setConsent('unset');
    await device.inlay.close();
    server.before = () => undefined;
    const next = start({}, { store: device.store });
    await next.load();
    await next.pass(0);
    expect(server.forgotten).toEqual([server.reports[0]?.dev]);
    await next.inlay.close();
  });

  it('to what is necessary drops feedback and events', async () => {
    const { world, server, start } = await createFleet();
    await world.ship('1.0.0', made(2));
    const device = start({ consent: 'full' });
    const model = await device.load();
    await model.run({ x: [1, 2] }, { id: 'a' });
    expect(model.feedback('a', { correct: true })).toBe(true);
    device.inlay.telemetry.event('bought', 3);
    await device.pass(31_000);
    await device.inlay.telemetry.setConsent('necessary');
    await device.inlay.telemetry.flush();
    const [window] = server.windows();
    expect([window?.n, window?.fb, window?.biz]).toEqual([1, undefined, undefined]);
    await device.inlay.close();
  });

  it('is one of three words', async () => {
    const { start } = await createFleet();
    const device = start();
    await expect(device.inlay.telemetry.setConsent('yes' as 'full')).rejects.toThrow(TypeError);
    await device.inlay.close();
  });
});

describe('feedback', () => {
  it('is joined on the device: counts leave it, labels and names do not', async () => {
    const { world, server, start } = await createFleet();
    await world.ship('1.0.0', made(2));
    const device = start({ consent: 'full' });
    const model = await device.load();
    for (const id of ['secret-1', 'secret-2']) await model.run({ x: [1, 2] }, { id });
    expect(model.feedback('secret-1', { correct: true, events: { kept: 1 } })).toBe(true);
    expect(model.feedback('secret-2', { correct: false })).toBe(true);
    expect(model.feedback('unknown', { correct: true })).toBe(false);
    await device.inlay.telemetry.flush();
    expect(last(server)).toMatchObject({ fb: { n: 2, ok: 1 }, biz: { kept: [1, 1] } });
    expect(server.bodies.join()).not.toContain('secret');
    await device.inlay.close();
  });

  it('does nothing for a model that is not reported', async () => {
    const { world } = await createFleet();
    await world.ship('1.0.0', made(2));
    const device = startDevice(world);
    const model = await device.load();
    const { y } = await model.run({ x: [1, 2] }, { id: 'a' });
    expect([(y as Tensor).data[0], model.feedback('a', { correct: true })]).toEqual([2, false]);
    expect(await device.inlay.telemetry.state()).toBeUndefined();
    await device.inlay.close();
  });
});

describe('the profile of a release', () => {
  const profile = {
    v: 1,
    inputs: { x: { type: 'number', tensor: 'x', reading: 'mean', edges: [0, 1, 2], counts: [5, 5, 0, 0] } },
    outputs: { y: { type: 'number', tensor: 'y', reading: 'max', edges: [0, 3, 6], counts: [5, 5, 0, 0] } },
  };
  const bytes = toUtf8(JSON.stringify(profile));
  const ship = async (world: World): Promise<void> => {
    const release = await publish(world, '1.0.0', {
      files: [{ variant: 'fp32', bytes: made(2) }],
      profile: bytes,
    });
    await world.repository.rollOut(release, 100);
  };
  const asked = ({ server }: World): boolean =>
    server.requests.some(({ path }) => path.includes(hashOf(bytes)));

  it('is brought with full consent, and calls are counted by it from then on', async () => {
    const { world, server, start } = await createFleet();
    await ship(world);
    const device = start({ consent: 'full' });
    const model = await device.load();
    await device.pass(0);
    await callOften(model, 3);
    await device.inlay.telemetry.flush();
    expect(last(server)).toMatchObject({
      prof: hashOf(bytes).slice(0, 16),
      n: 3,
      x: { x: [0, 3, 0, 0] },
      p: { y: [0, 3, 0, 0] },
    });
    // It is there at the next start, without a network.
    await device.inlay.close();
    const requests = world.server.requests.length;
    const next = start({ consent: 'full' }, { store: device.store });
    await callOften(await next.load(), 1);
    await next.pass(0);
    await callOften(await next.load(), 1);
    await next.inlay.telemetry.flush();
    expect(last(server)?.x).toBeDefined();
    expect(world.server.requests.slice(requests).some(({ path }) => path.includes(hashOf(bytes)))).toBe(
      false,
    );
    await next.inlay.close();
  });

  it('is not even asked for without it', async () => {
    const { world, server, start } = await createFleet();
    await ship(world);
    const device = start();
    await callOften(await device.load(), 3);
    await device.pass(0);
    await device.inlay.telemetry.flush();
    expect([asked(world), last(server)?.prof, server.calls()]).toEqual([false, undefined, 3]);
    await device.inlay.close();
  });

  it('that cannot be had, or is none, hinders nothing', async () => {
    const { world, server, start } = await createFleet();
    await ship(world);
    world.repository.blobs.delete(hashOf(bytes));
    const device = start({ consent: 'full' });
    const model = await device.load();
    await device.pass(0);
    await callOften(model, 3);
    await device.inlay.telemetry.flush();
    expect([await answerOf(model), server.calls()]).toEqual([['1.0.0', 2], 3]);
    await device.inlay.close();
  });
});

describe('an app that people leave', () => {
  it('sends what fits into what outlives a page, once it is written down', async () => {
    const { world, server, start } = await createFleet();
    await world.ship('1.0.0', made(2));
    const inits: (FetchInit | undefined)[] = [];
    const listeners = new Set<() => void>();
    const device = start(
      { consent: 'necessary' },
      {
        platform: {
          ...testPlatform({ fetch: world.server.fetch }),
          onHide: (listener) => {
            listeners.add(listener);
            return () => listeners.delete(listener);
          },
        },
        fetch: (url, init) => {
          if (url.endsWith('/v1/reports')) inits.push(init);
          return server.fetch(url, init);
        },
      },
    );
    await callOften(await device.load(), 4);
    for (const listener of listeners) listener();
    await device.pass(0);
    expect([server.calls(), inits.map((init) => init?.keepalive)]).toEqual([4, [true]]);
    await device.inlay.close();
    expect(listeners.size).toBe(0);
  });
});

describe('a device in the shadow', () => {
  it('says how the candidate compares, in no arm', async () => {
    const { world, server, start } = await createFleet();
    await world.ship('1.0.0', made(2));
    const device = start();
    const model = await settleOn(device);
    await world.ship('1.1.0', made(3), {
      state: 'ramp',
      bp: 0,
      ctl: 0,
      shadow: { bp: 10_000, sampleBp: 10_000 },
    });
    await device.update();
    for (let call = 0; call < 3; call += 1) {
      await answerOf(model);
      await device.pass(1);
    }
    await device.inlay.telemetry.flush();
    const window = server.windows().find(({ ver }) => ver === '1.1.0');
    expect(window).toMatchObject({ n: 0, ok: 0, sh: [3, 3, 0, 0] });
    expect([window?.ro === undefined, window?.arm]).toEqual([false, undefined]);
    await device.inlay.close();
  });
});
