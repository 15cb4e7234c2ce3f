/** The attacks that TUF 1.0 §1.5.2 names, and slow retrieval, against a device that follows a repository of files. */

import { beforeEach, describe, expect, it } from 'vitest';
import { toUtf8 } from '../../../src/core/bytes.ts';
import { createTrustedMetadata, metadataCaps } from '../../../src/trust/client.ts';
import { refreshMetadata } from '../../../src/trust/repository-client.ts';
import { fetchBytes } from '../../../src/update/fetch.ts';
import { testPlatform, testStart, until } from '../platform.ts';
import { createSimulator, newSimulatedSigner, timeAt, type Device, type Simulator } from './simulator.ts';

const day = 86_400_000;
const path = 'models/digits/1/model.onnx';
const good = toUtf8('a good model');
const evil = toUtf8('an evil one!');

let repo: Simulator;
let device: Device;

beforeEach(async () => {
  repo = await createSimulator();
  await repo.addTarget('targets', path, good);
  await repo.publish('targets', 'snapshot', 'timestamp');
  device = repo.device();
  await device.refresh();
});

const outcome = (): Promise<string> => device.outcome(device.download(path));
/** Whatever happened, the device still has what it had, and goes on once the attack is over. */
const isUnharmed = async (): Promise<void> => {
  expect(await device.download(path)).toEqual([good]);
};

describe('arbitrary installation', () => {
  it('is stopped by the hash in the signed targets', async () => {
    const blobs = new Map(repo.blobs);
    for (const name of blobs.keys()) repo.blobs.set(name, evil);
    expect(await outcome()).toBe('ERR_INLAY_HASH');
    for (const [name, bytes] of blobs) repo.blobs.set(name, bytes);
    await isUnharmed();
  });

  it.each(['root', 'timestamp', 'snapshot', 'targets'])(
    'is stopped by the signatures of %s',
    async (role) => {
      const before = device.versions();
      await repo.addTarget('targets', path, evil);
      repo.signers.set(role, [await newSimulatedSigner()]);
      await repo.publish('root', 'targets', 'snapshot', 'timestamp');
      expect(await outcome()).toBe('ERR_INLAY_SIGNATURE');
      expect(device.versions()).toMatchObject({ [role]: before[role], targets: before['targets'] });
    },
  );
});

describe('endless data', () => {
  it.each([
    ['2.root.json', 'root'],
    ['timestamp.json', 'timestamp'],
    ['3.snapshot.json', 'snapshot'],
    ['3.targets.json', 'targets'],
  ] as const)('ends %s at its cap', async (name, role) => {
    await repo.publish('targets', 'snapshot', 'timestamp');
    const asked: number[] = [];
    const trusted = await createTrustedMetadata({ platform: repo.platform, root: device.root });
    const refreshing = refreshMetadata(trusted, {
      fetchMetadata: async (file, capBytes) => {
        if (file !== name) return repo.files.get(file);
        asked.push(capBytes);
        // A fetcher that does not heed the cap.
        return new Uint8Array(capBytes + 1);
      },
    });
    expect(await device.outcome(refreshing)).toBe('ERR_INLAY_LENGTH');
    expect(asked).toEqual([metadataCaps[role]]);
  });

  it('asks for no more than the length that is pinned', async () => {
    repo.usesHashes = true;
    await repo.publish('targets', 'snapshot', 'timestamp');
    const caps: Record<string, number> = {};
    const trusted = await createTrustedMetadata({ platform: repo.platform, root: device.root });
    await refreshMetadata(trusted, {
      fetchMetadata: async (name, capBytes) => {
        caps[name] = capBytes;
        return repo.files.get(name);
      },
    });
    expect(caps['3.targets.json']).toBe(repo.files.get('3.targets.json')?.length);
    expect(caps['3.snapshot.json']).toBe(repo.files.get('3.snapshot.json')?.length);
  });

  it('ends a model at its signed length', async () => {
    for (const name of repo.blobs.keys()) repo.blobs.set(name, new Uint8Array(good.length + 1));
    expect(await outcome()).toContain('The request was ended.');
  });
});

describe('extraneous dependencies and wrong software', () => {
  it('a role lists nothing outside what is delegated to it along the whole chain', async () => {
    await repo.delegate('targets', 'team', { paths: ['models/speech/*/*'] });
    await repo.delegate('team', 'member', { paths: ['models/*/*/*'] });
    const other = 'models/faces/1/model.onnx';
    await repo.addTarget('team', other, evil);
    await repo.addTarget('member', other, evil);
    await repo.addTarget('member', 'models/speech/1/model.onnx', good);
    await repo.publish('member', 'team', 'targets', 'snapshot', 'timestamp');
    expect(await device.download('models/speech/1/model.onnx')).toEqual([good]);
    expect(await device.outcome(device.download(other))).toContain('Nobody lists');
  });

  it('a delegated role does not replace what its delegator lists', async () => {
    await repo.delegate('targets', 'team');
    await repo.addTarget('team', path, evil);
    await repo.publish('team', 'targets', 'snapshot', 'timestamp');
    await isUnharmed();
  });
});

describe('fast-forward', () => {
  const last = Number.MAX_SAFE_INTEGER - 1;

  it.each(['timestamp', 'snapshot', 'targets'])(
    'of %s ends when the online keys are rotated',
    async (role) => {
      const body = repo.bodies.get(role);
      if (!body) throw new Error('There is no such role.');
      const before = body.version;
      body.version = last;
      await repo.publish('snapshot', 'timestamp');
      if (role === 'targets') {
        body.version -= 1;
        await repo.publish('targets', 'snapshot', 'timestamp');
      }
      await device.refresh();
      body.version = before;
      await repo.publish('targets', 'snapshot', 'timestamp');
      expect(await outcome()).toBe('ERR_INLAY_ROLLBACK');
      repo.setKeys('timestamp', await newSimulatedSigner());
      repo.setKeys('snapshot', await newSimulatedSigner());
      await repo.publish('root', 'targets', 'snapshot', 'timestamp');
      await isUnharmed();
    },
  );

  it('of the time of issue ends when the online keys are rotated', async () => {
    repo.timestamp['issued'] = timeAt(36_500);
    repo.timestamp.expires = timeAt(40_000);
    await repo.publish('timestamp');
    expect(await outcome()).toBe('ERR_INLAY_EXPIRED');
    repo.timestamp['issued'] = timeAt(1);
    repo.timestamp.expires = timeAt(30);
    await repo.publish('timestamp');
    expect(await outcome()).toBe('ERR_INLAY_EXPIRED');
    repo.setKeys('timestamp', await newSimulatedSigner());
    await repo.publish('root', 'timestamp');
    await isUnharmed();
  });
});

describe('indefinite freeze', () => {
  it.each(['root', 'timestamp', 'snapshot', 'targets'])('ends when %s expires', async (role) => {
    const body = repo.bodies.get(role);
    if (body) body.expires = timeAt(2);
    await repo.publish('root', 'targets', 'snapshot', 'timestamp');
    repo.platform.setNow(testStart + 2 * day - 1000);
    await isUnharmed();
    repo.platform.setNow(testStart + 2 * day);
    expect(await outcome()).toBe('ERR_INLAY_EXPIRED');
  });

  it('is not revived by a clock that stands at 1970', async () => {
    repo.timestamp['issued'] = timeAt(0);
    repo.targets.expires = timeAt(2);
    await repo.publish('targets', 'snapshot', 'timestamp');
    await device.refresh();
    repo.platform.setNow(testStart + 3 * day);
    expect(await outcome()).toBe('ERR_INLAY_EXPIRED');
    repo.timestamp['issued'] = timeAt(3);
    await repo.publish('timestamp');
    // The timestamp is taken, the targets are not.
    expect(await outcome()).toBe('ERR_INLAY_EXPIRED');
    repo.platform.setNow(0);
    expect(await outcome()).toBe('ERR_INLAY_EXPIRED');
    repo.targets.expires = timeAt(30);
    await repo.publish('targets', 'snapshot', 'timestamp');
    await isUnharmed();
  });

  it('is not hidden by a clock that stands at 1970 from a device that just starts', async () => {
    repo.timestamp['issued'] = timeAt(3);
    repo.targets.expires = timeAt(2);
    await repo.publish('targets', 'snapshot', 'timestamp');
    repo.platform.setNow(0);
    device = repo.device();
    expect(await outcome()).toBe('ERR_INLAY_EXPIRED');
  });

  it('a clock that stands at 2100 takes nothing, and loses nothing', async () => {
    repo.platform.setNow(Date.UTC(2100, 0, 1));
    const before = device.versions();
    expect(await outcome()).toBe('ERR_INLAY_EXPIRED');
    expect(device.versions()).toEqual(before);
    repo.platform.setNow(testStart);
    await isUnharmed();
  });

  it('a timestamp that expired before it was issued is not taken', async () => {
    repo.timestamp['issued'] = timeAt(5);
    repo.timestamp.expires = timeAt(4);
    await repo.publish('timestamp');
    expect(await outcome()).toBe('ERR_INLAY_EXPIRED');
  });

  it('what others mean by `issued` does not matter', async () => {
    for (const issued of [{ by: 'x' }, 7, '2999', null]) {
      repo.timestamp['issued'] = issued;
      await repo.publish('timestamp');
      await isUnharmed();
    }
  });
});

describe('malicious mirrors', () => {
  it('do no harm to a device that can reach an honest one', async () => {
    const files = new Map(repo.files);
    const mirrors: ((name: string) => Uint8Array | undefined)[] = [
      () => undefined,
      () => toUtf8('<html>Please log in.</html>'),
      () => new Uint8Array(20_000),
      (name) => files.get(name)?.map((byte, i) => (i === 300 ? byte ^ 1 : byte)),
      (name) => files.get(name.replace('snapshot', 'targets')),
    ];
    await repo.publish('root', 'targets', 'snapshot', 'timestamp');
    for (const mirror of mirrors) {
      const trusted = await createTrustedMetadata({ platform: repo.platform, root: device.root });
      const fetchFrom = (source: typeof mirror): Promise<void> =>
        refreshMetadata(trusted, { fetchMetadata: async (name) => source(name) });
      expect(await device.outcome(fetchFrom(mirror))).not.toBe('ok');
      await fetchFrom((name) => repo.files.get(name));
      trusted.assertCurrent();
      expect(trusted.targets?.version).toBe(3);
    }
  });
});

describe('mix-and-match', () => {
  it.each([false, true])('takes only files that belong together (hashes: %s)', async (usesHashes) => {
    repo.usesHashes = usesHashes;
    await repo.publish('targets', 'snapshot', 'timestamp');
    const before = new Map(repo.files);
    await repo.publish('targets', 'snapshot', 'timestamp');
    for (const role of ['snapshot', 'targets']) {
      const name = `4.${role}.json`;
      const newest = repo.files.get(name);
      repo.files.set(name, before.get(`3.${role}.json`) ?? evil);
      expect(await outcome()).toMatch(/ERR_INLAY_(ROLLBACK|HASH)/);
      repo.files.set(name, newest ?? evil);
    }
    await isUnharmed();
  });

  it('takes no older delegated role beside newer targets', async () => {
    await repo.delegate('targets', 'team', { paths: ['team/*'] });
    await repo.addTarget('team', 'team/file', evil);
    await repo.publish('team', 'targets', 'snapshot', 'timestamp');
    await device.download('team/file');
    await repo.addTarget('team', 'team/file', good);
    await repo.publish('team', 'snapshot', 'timestamp');
    const newest = repo.files.get('2.team.json');
    repo.files.set('2.team.json', repo.files.get('1.team.json') ?? evil);
    expect(await device.outcome(device.download('team/file'))).toBe('ERR_INLAY_ROLLBACK');
    repo.files.set('2.team.json', newest ?? evil);
    expect(await device.download('team/file')).toEqual([good]);
  });
});

describe('rollback', () => {
  it('of everything is refused, also by a device that starts anew from its store', async () => {
    const old = new Map(repo.files);
    await repo.publish('root', 'targets', 'snapshot', 'timestamp');
    await device.refresh();
    const newest = new Map(repo.files);
    for (const [name, bytes] of old) repo.files.set(name, bytes);
    expect(await outcome()).toBe('ERR_INLAY_ROLLBACK');
    for (const [name, bytes] of newest) repo.files.set(name, bytes);
    await isUnharmed();
  });
});

describe('slow retrieval', () => {
  /** A server that sends so many bytes, and then nothing for ever, or another one at each step. */
  const slow = (body: ReadableStream<Uint8Array>): ReturnType<typeof testPlatform> =>
    testPlatform({ fetch: async () => new Response(body) });

  it('ends when the server falls silent, and leaves everything as it was', async () => {
    const platform = slow(
      new ReadableStream({
        start: (controller) => {
          controller.enqueue(toUtf8('{'));
        },
      }),
    );
    const trusted = await createTrustedMetadata({ platform: repo.platform, root: device.root });
    const before = trusted.export();
    const refreshing = device.outcome(
      refreshMetadata(trusted, {
        fetchMetadata: async (name, capBytes) =>
          (await fetchBytes(platform, `https://mirror.test/${name}`, { capBytes, timeoutMs: 1000 })).bytes,
      }),
    );
    await until(() => platform.timers().length > 0);
    // The headers came, and the first byte; each starts the time anew.
    for (let i = 0; i < 3; i += 1) {
      await new Promise((resolve) => setTimeout(resolve, 0));
      platform.advance(1000);
    }
    expect(await refreshing).toBe('ERR_INLAY_NETWORK');
    expect(trusted.export()).toEqual(before);
  });

  it('ends with the time that the whole cycle may take, though the server never falls silent', async () => {
    let sent = 0;
    const platform = slow(
      new ReadableStream(
        {
          pull: async (controller) => {
            platform.advance(900);
            sent += 1;
            controller.enqueue(toUtf8('['));
          },
        },
        // Time passes only while somebody waits for a piece.
        { highWaterMark: 0 },
      ),
    );
    const cycle = new AbortController();
    platform.setTimer(() => {
      cycle.abort(new Error('The cycle took too long.'));
    }, 60_000);
    const trusted = await createTrustedMetadata({ platform: repo.platform, root: device.root });
    const refreshing = refreshMetadata(trusted, {
      fetchMetadata: async (name, capBytes) => {
        const options = { capBytes, timeoutMs: 1000, signal: cycle.signal };
        return (await fetchBytes(platform, `https://mirror.test/${name}`, options)).bytes;
      },
    });
    expect(await device.outcome(refreshing)).toContain('The cycle took too long.');
    expect(sent).toBeLessThan(80);
  });
});

describe('key compromise', () => {
  it('of the online keys ships no model that the offline key did not sign', async () => {
    await repo.addTarget('targets', path, evil);
    const [online] = repo.signers.get('timestamp') ?? [];
    repo.signers.set('targets', online ? [online] : []);
    await repo.publish('targets', 'snapshot', 'timestamp');
    expect(await outcome()).toBe('ERR_INLAY_SIGNATURE');
  });

  it('of fewer keys than the threshold signs nothing', async () => {
    repo.addKeys('targets', await newSimulatedSigner(), await newSimulatedSigner());
    repo.root.roles.targets.threshold = 2;
    await repo.publish('root', 'targets', 'snapshot', 'timestamp');
    await isUnharmed();
    const stolen = repo.signers.get('targets')?.slice(0, 1) ?? [];
    repo.signers.set('targets', stolen);
    await repo.addTarget('targets', path, evil);
    await repo.publish('targets', 'snapshot', 'timestamp');
    expect(await outcome()).toBe('ERR_INLAY_SIGNATURE');
  });

  it('ends when the root replaces the key', async () => {
    const stolen = repo.signers.get('targets') ?? [];
    repo.setKeys('targets', await newSimulatedSigner());
    await repo.publish('root', 'targets', 'snapshot', 'timestamp');
    await isUnharmed();
    repo.signers.set('targets', stolen);
    await repo.addTarget('targets', path, evil);
    await repo.publish('targets', 'snapshot', 'timestamp');
    expect(await outcome()).toBe('ERR_INLAY_SIGNATURE');
  });

  it("of the store ships nothing: what lies there is verified from the app's root on", async () => {
    const mallory = await createSimulator();
    await mallory.addTarget('targets', path, evil);
    await mallory.publish('root', 'targets', 'snapshot', 'timestamp');
    for (const [key, name] of [
      ['root.2', '2.root.json'],
      ['timestamp', 'timestamp.json'],
      ['snapshot', '2.snapshot.json'],
      ['targets', '2.targets.json'],
    ] as const) {
      device.records.set(key, mallory.files.get(name) ?? evil);
      await isUnharmed();
    }
  });
});
