import { beforeEach, describe, expect, it } from 'vitest';
import { fromUtf8, toUtf8 } from '../../../src/core/bytes.ts';
import { testStart } from '../platform.ts';
import {
  createSimulator,
  newSimulatedSigner,
  timeAt,
  type Device,
  type Simulator,
  type SimulatedSigner,
} from './simulator.ts';

const day = 86_400_000;
const content = toUtf8('a model');

let repo: Simulator;
let device: Device;

beforeEach(async () => {
  repo = await createSimulator();
  device = repo.device();
});

/** The last file that was signed of a role. */
const replaceFile = (name: string, change: (envelope: Envelope) => void): void => {
  const envelope = JSON.parse(fromUtf8(repo.files.get(name) ?? new Uint8Array())) as Envelope;
  change(envelope);
  repo.files.set(name, toUtf8(JSON.stringify(envelope)));
};
interface Envelope {
  signatures: { keyid: string; sig: string }[];
  signed: Record<string, unknown>;
}
const all = (version: number): Record<string, number> => ({
  root: 1,
  timestamp: version,
  snapshot: version,
  targets: version,
});

describe('a refresh', () => {
  it('asks for root, timestamp, snapshot and targets in this order', async () => {
    await repo.publish('root');
    await device.refresh();
    expect(repo.requests).toEqual([
      '2.root.json',
      '3.root.json',
      'timestamp.json',
      '1.snapshot.json',
      '1.targets.json',
    ]);
    expect(device.versions()).toEqual({ ...all(1), root: 2 });
  });

  it('asks for a root and a timestamp only where nothing changed', async () => {
    await device.refresh();
    repo.requests.length = 0;
    await device.refresh();
    expect(repo.requests).toEqual(['2.root.json', 'timestamp.json']);
  });

  it('keeps the bytes as they came', async () => {
    const spaced = toUtf8(`${fromUtf8(repo.files.get('timestamp.json') ?? content)} `);
    repo.files.set('timestamp.json', spaced);
    await device.refresh();
    expect(device.records.get('timestamp')).toEqual(spaced);
  });

  it('does nothing with a first root that is not valid', async () => {
    for (const bytes of [toUtf8('{}'), await unsignedRoot()]) {
      repo.files.set('1.root.json', bytes);
      expect(await repo.device().outcome()).toMatch(/ERR_INLAY_(METADATA_INVALID|SIGNATURE)/);
    }
    expect(repo.requests).toEqual([]);
  });
  const unsignedRoot = async (): Promise<Uint8Array> => {
    repo.signers.set('root', []);
    return repo.sign('root');
  };

  it('takes metadata with fields that it does not know', async () => {
    const signer = await newSimulatedSigner('ed25519', { 'x-owner': { a: 1 } });
    repo.addKeys('root', signer);
    repo.root['custom-field'] = 'value';
    repo.targets['x-more'] = { deep: [1, null] };
    await repo.publish('root', 'targets', 'snapshot', 'timestamp');
    expect((await device.refresh()).root).toMatchObject({ version: 2, 'custom-field': 'value' });
  });

  it('does not look at keyid_hash_algorithms', async () => {
    repo.setKeys('snapshot', await newSimulatedSigner('ed25519', { keyid_hash_algorithms: 'md5' }));
    await repo.publish('root', 'snapshot', 'timestamp');
    await device.refresh();
    expect(device.versions()).toMatchObject({ root: 2, snapshot: 2 });
  });

  it('ignores another content of the timestamp version that it has', async () => {
    await device.refresh();
    repo.timestamp.version -= 1;
    repo.timestamp.meta['snapshot.json'] = { version: 100 };
    await repo.publish('timestamp');
    expect((await device.refresh()).timestamp?.meta['snapshot.json'].version).toBe(1);
    expect(repo.requests.at(-1)).toBe('timestamp.json');
  });

  it('follows a repository without consistent snapshots', async () => {
    repo.root.consistent_snapshot = false;
    await repo.publish('root', 'targets', 'snapshot', 'timestamp');
    await repo.addTarget('targets', 'a/model.onnx', content);
    await repo.publish('targets', 'snapshot', 'timestamp');
    expect(await device.download('a/model.onnx')).toEqual([content]);
    expect(repo.requests.slice(2)).toEqual([
      'timestamp.json',
      'snapshot.json',
      'targets.json',
      'a/model.onnx',
    ]);
  });

  const unsigned: [role: string, kept: object][] = [
    ['root', { root: 1 }],
    ['timestamp', { root: 2 }],
    ['snapshot', { root: 2, timestamp: 2 }],
    ['targets', { root: 2, timestamp: 2, snapshot: 2 }],
  ];
  it.each(unsigned)('keeps what comes before %s if that is not signed', async (role, kept) => {
    repo.signers.set(role, []);
    await repo.publish('root', 'targets', 'snapshot', 'timestamp');
    expect(await device.outcome()).toBe('ERR_INLAY_SIGNATURE');
    expect(device.versions()).toEqual(kept);
  });

  it.each([
    ['root', { root: 1 }],
    ['snapshot', { root: 1, timestamp: 2 }],
    ['targets', { root: 1, timestamp: 2, snapshot: 2 }],
  ])('refuses a %s of another version than its name says', async (role, kept) => {
    await repo.publish('targets', 'snapshot', 'timestamp');
    const body = repo.bodies.get(role);
    if (!body) throw new Error('There is no such role.');
    body.version += 1;
    const name = role === 'root' ? '2.root.json' : `2.${role}.json`;
    if (role === 'root') body.version += 1;
    repo.files.set(name, await repo.sign(role));
    expect(await device.outcome()).toMatch(/ERR_INLAY_(ROLLBACK|METADATA_INVALID)/);
    expect(device.versions()).toEqual(kept);
  });

  it.each([
    ['timestamp.json', { root: 1 }],
    ['2.snapshot.json', { root: 1, timestamp: 2 }],
    ['2.targets.json', { root: 1, timestamp: 2, snapshot: 2 }],
  ])('keeps what comes before %s if that is missing', async (name, kept) => {
    await repo.publish('targets', 'snapshot', 'timestamp');
    repo.files.delete(name);
    expect(await device.outcome()).toBe('ERR_INLAY_HTTP_STATUS');
    expect(device.versions()).toEqual(kept);
  });

  it('keeps the older targets until it has the newer ones', async () => {
    await device.refresh();
    await repo.publish('targets', 'snapshot', 'timestamp');
    repo.files.delete('2.targets.json');
    expect(await device.outcome()).toBe('ERR_INLAY_HTTP_STATUS');
    expect(device.versions()).toEqual({ ...all(2), targets: 1 });
  });

  it.each(['snapshot', 'targets'])('refuses a %s whose hash is another', async (role) => {
    repo.usesHashes = true;
    await repo.publish('targets', 'snapshot', 'timestamp');
    await device.refresh();
    await repo.publish('targets');
    if (role === 'targets')
      repo.snapshot.meta['targets.json'] = { version: 3, hashes: { sha256: '0'.repeat(64) } };
    await repo.publish('snapshot');
    if (role === 'snapshot')
      repo.timestamp.meta['snapshot.json'] = { version: 3, hashes: { sha256: '0'.repeat(64) } };
    await repo.publish('timestamp');
    expect(await device.outcome()).toBe('ERR_INLAY_HASH');
    expect(device.versions()).toMatchObject({ timestamp: 3, [role]: 2 });
  });

  it('refuses a snapshot in the place of the timestamp', async () => {
    const [signer] = repo.signers.get('timestamp') ?? [];
    if (signer) repo.addKeys('snapshot', signer);
    repo.snapshot.meta = { 'snapshot.json': { version: 1 }, 'targets.json': { version: 1 } };
    await repo.publish('root', 'snapshot');
    repo.files.set('timestamp.json', repo.files.get('2.snapshot.json') ?? content);
    expect(await device.outcome()).toBe('ERR_INLAY_METADATA_INVALID');
    expect(device.versions()).toEqual({ root: 2 });
  });

  it('takes no more than 256 roots in one go', async () => {
    for (let i = 0; i < 260; i += 1) await repo.publish('root');
    await device.refresh();
    expect(device.versions()['root']).toBe(257);
    await device.refresh();
    expect(device.versions()['root']).toBe(261);
  });

  it('goes on from where a crash left it', async () => {
    await repo.publish('root', 'targets', 'snapshot', 'timestamp');
    const steps = 4;
    for (let crash = 0; crash < steps; crash += 1) {
      const crashing = repo.device();
      let writes = 0;
      const { set } = Map.prototype;
      crashing.records.set = function (key, value) {
        if (writes++ === crash) throw new Error('The power is gone.');
        return set.call(this, key, value) as Map<string, Uint8Array>;
      };
      expect(await crashing.outcome()).toContain('The power is gone.');
      crashing.records.set = set as typeof crashing.records.set;
      expect(await crashing.outcome()).toBe('ok');
      expect(crashing.versions()).toEqual({ ...all(2), root: 2 });
    }
  });

  it('drops what was damaged in the store, and fetches it again', async () => {
    await repo.publish('root', 'targets', 'snapshot', 'timestamp');
    await device.refresh();
    for (const key of device.records.keys()) {
      for (const damaged of [Uint8Array.of(0xff, 0xfe), toUtf8('{"signed":{}}')]) {
        device.records.set(key, damaged);
        expect(await device.outcome()).toBe('ok');
        expect(device.versions()).toEqual({ ...all(2), root: 2 });
      }
    }
  });
});

describe('expiry', () => {
  it('takes an expired root, but nothing after it', async () => {
    await device.refresh();
    repo.root.expires = timeAt(-1);
    await repo.publish('root', 'targets', 'snapshot', 'timestamp');
    expect(await device.outcome()).toBe('ERR_INLAY_EXPIRED');
    expect(device.versions()).toEqual({ ...all(1), root: 2 });
  });

  it.each([
    ['timestamp', { timestamp: 1, snapshot: 1, targets: 1 }],
    ['snapshot', { timestamp: 2, snapshot: 1, targets: 1 }],
    ['targets', { timestamp: 2, snapshot: 2, targets: 1 }],
  ])('does not take an expired %s', async (role, kept) => {
    await device.refresh();
    const body = repo.bodies.get(role);
    if (body) body.expires = timeAt(-5);
    await repo.publish('targets', 'snapshot', 'timestamp');
    expect(await device.outcome()).toBe('ERR_INLAY_EXPIRED');
    expect(device.versions()).toEqual({ root: 1, ...kept });
  });

  it.each(['root', 'timestamp'])('goes on from a stored %s that has expired', async (role) => {
    const body = repo.bodies.get(role);
    if (body) body.expires = timeAt(7);
    await repo.publish('root', 'timestamp');
    await device.refresh();
    if (body) body.expires = timeAt(21);
    await repo.publish('root', 'targets', 'snapshot', 'timestamp');
    repo.platform.setNow(testStart + 18 * day);
    expect(await device.outcome()).toBe('ok');
    expect(device.versions()).toEqual({ root: 3, timestamp: 3, snapshot: 2, targets: 2 });
  });

  it('does not use a stored delegated role that has expired', async () => {
    await repo.delegate('targets', 'team');
    const body = repo.bodies.get('team');
    if (body) body.expires = timeAt(2);
    await repo.addTarget('team', 'file', content);
    await repo.publish('team', 'targets', 'snapshot', 'timestamp');
    await device.download('file');
    repo.platform.setNow(testStart + 3 * day);
    expect(await device.outcome(device.download('file'))).toBe('ERR_INLAY_EXPIRED');
  });
});

describe('a download', () => {
  it.each(['file', 'path/to/a/file', 'with space/ü?#.onnx'])('gives %s', async (path) => {
    await repo.addTarget('targets', path, content);
    await repo.publish('targets', 'snapshot', 'timestamp');
    expect(await device.download(path)).toEqual([content]);
    expect(repo.requests.at(-1)).toMatch(/^([\w.~/-]|%[0-9A-F]{2})+$/);
  });

  it('refuses another file in its place', async () => {
    await repo.addTarget('targets', 'file', content);
    await repo.publish('targets', 'snapshot', 'timestamp');
    for (const [evil, code] of [
      [toUtf8('a m0del'), 'ERR_INLAY_HASH'],
      [toUtf8('short'), 'ERR_INLAY_LENGTH'],
    ] as const) {
      for (const name of repo.blobs.keys()) repo.blobs.set(name, evil);
      expect(await device.outcome(device.download('file'))).toBe(code);
    }
  });

  it('follows changes of a file', async () => {
    for (let i = 0; i < 3; i += 1) {
      const changed = toUtf8(`content ${i}`);
      await repo.addTarget('targets', 'file', changed);
      await repo.publish('targets', 'snapshot', 'timestamp');
      expect(await device.download('file')).toEqual([changed]);
    }
  });

  const addSha512 = async (): Promise<void> => {
    const { sha512 } = await import('@noble/hashes/sha2.js');
    Object.assign(repo.platform, {
      createSha512: () => {
        const hash = sha512.create();
        return { update: (bytes: Uint8Array) => void hash.update(bytes), digest: () => hash.digest() };
      },
    });
  };
  const kinds: [readonly string[], string, boolean][] = [
    [['sha256'], 'ok', false],
    [['sha512'], 'ERR_INLAY_HASH', false],
    [['sha512'], 'ok', true],
    [['sha256', 'sha512'], 'ok', true],
    [['sha256', 'blake9'], 'ok', false],
    [['blake9'], 'ERR_INLAY_HASH', true],
  ];
  it.each(kinds)('by %s ends with %s (SHA-512: %s)', async (hashes, outcome, hasSha512) => {
    if (hasSha512) await addSha512();
    await repo.addTarget('targets', 'file', content, hashes);
    await repo.publish('targets', 'snapshot', 'timestamp');
    expect(await device.outcome(device.download('file'))).toBe(outcome);
  });

  it.each(['sha256', 'sha512'])('refuses a file of which only the %s is wrong', async (algorithm) => {
    await addSha512();
    await repo.addTarget('targets', 'file', content, ['sha256', 'sha512']);
    const file = repo.targets.targets['file'];
    if (!file) throw new Error('The file is missing.');
    const hashes = { ...file.hashes, [algorithm]: 'ab'.repeat(32) };
    repo.targets.targets['file'] = { ...file, hashes };
    for (const hash of Object.values(hashes)) repo.blobs.set(`${hash}.file`, content);
    await repo.publish('targets', 'snapshot', 'timestamp');
    expect(await device.outcome(device.download('file'))).toBe('ERR_INLAY_HASH');
  });
});

describe('keys', () => {
  it('needs the threshold of a role', async () => {
    repo.addKeys('snapshot', await newSimulatedSigner(), await newSimulatedSigner());
    repo.root.roles.snapshot.threshold = 3;
    await repo.publish('root', 'targets', 'snapshot', 'timestamp');
    await device.refresh();
    repo.signers.get('snapshot')?.pop();
    await repo.publish('targets', 'snapshot', 'timestamp');
    expect(await device.outcome()).toBe('ERR_INLAY_SIGNATURE');
    expect(device.versions()).toMatchObject({ snapshot: 2 });
  });

  it('cannot meet a threshold that is higher than the number of keys', async () => {
    for (let i = 0; i < 4; i += 1) repo.addKeys('snapshot', await newSimulatedSigner());
    repo.root.roles.snapshot.threshold = 6;
    await repo.publish('root', 'snapshot', 'timestamp');
    expect(await device.outcome()).toBe('ERR_INLAY_SIGNATURE');
    expect(device.versions()).toEqual({ root: 2, timestamp: 2 });
  });

  it('counts a key once that a role names nine times', async () => {
    const signer = await newSimulatedSigner();
    repo.addKeys('snapshot', ...Array.from({ length: 9 }, () => signer));
    repo.root.roles.snapshot.threshold = 6;
    await repo.publish('root', 'snapshot', 'timestamp');
    expect(await device.outcome()).toBe('ERR_INLAY_METADATA_INVALID');
    expect(device.versions()).toEqual({ root: 1 });
  });

  it('counts a key once that has two identifiers and two ways to be written', async () => {
    for (const scheme of ['ed25519', 'ecdsa-sha2-nistp256'] as const) {
      repo = await createSimulator();
      const signer = await newSimulatedSigner(scheme);
      const text = signer.key.keyval.public;
      const rewritten = scheme === 'ed25519' ? text.toUpperCase() : text.replace(/\n/g, '\r\n');
      const alias: SimulatedSigner = {
        ...signer,
        keyid: 'alias',
        key: { ...signer.key, keyval: { public: rewritten } },
      };
      repo.setKeys('timestamp', signer, alias);
      repo.root.roles.timestamp.threshold = 2;
      await repo.publish('root', 'timestamp');
      expect(await repo.device().outcome()).toBe('ERR_INLAY_SIGNATURE');
      repo.root.roles.timestamp.threshold = 1;
      await repo.publish('root', 'timestamp');
      expect(await repo.device().outcome()).toBe('ok');
    }
  });

  it('refuses two signatures under one identifier', async () => {
    replaceFile('1.snapshot.json', ({ signatures }) => void signatures.push(...signatures));
    expect(await device.outcome()).toBe('ERR_INLAY_SIGNATURE');
    expect(device.versions()).toEqual({ root: 1, timestamp: 1 });
  });

  it.each(['ed25519', 'ecdsa-sha2-nistp256', 'rsassa-pss-sha256'] as const)(
    'takes signatures of the kind %s, and no wrong ones',
    async (scheme) => {
      repo.addKeys('root', await newSimulatedSigner(scheme));
      repo.root.roles.root.threshold = 2;
      await repo.publish('root');
      await device.refresh();
      await repo.publish('root');
      replaceFile('3.root.json', ({ signatures }) => {
        const before = JSON.parse(fromUtf8(repo.files.get('2.root.json') ?? content)) as Envelope;
        signatures.splice(1, 1, ...before.signatures.slice(1));
      });
      expect(await device.outcome()).toBe('ERR_INLAY_SIGNATURE');
      expect(device.versions()['root']).toBe(2);
    },
  );

  it('is not bothered by a wrong signature beside enough right ones', async () => {
    repo.addKeys('timestamp', await newSimulatedSigner());
    await repo.publish('root', 'timestamp');
    for (const sig of ['ab'.repeat(64), '', 'abcd', 'ab'.repeat(7000)]) {
      await repo.publish('timestamp');
      replaceFile('timestamp.json', ({ signatures }) => {
        if (signatures[0]) signatures[0].sig = sig;
      });
      expect(await device.outcome()).toBe('ok');
    }
  });
});

describe('names', () => {
  it.each([
    ['?', '%3F'],
    ['#', '%23'],
    ['/delegatedrole', '%2Fdelegatedrole'],
    ['../delegatedrole', '..%2Fdelegatedrole'],
    ["it's (a) *", 'it%27s%20%28a%29%20%2A'],
    ['root.2', 'root.2'],
    ['1.root', '1.root'],
    ['__proto__', '__proto__'],
  ])('asks for the role %s as %s', async (role, name) => {
    await repo.delegate('targets', role);
    await repo.publish(role, 'targets', 'snapshot', 'timestamp');
    expect(await device.outcome(device.download('nothing'))).toContain('Nobody lists');
    expect(repo.requests.at(-1)).toBe(`1.${name}.json`);
    expect([...device.records.keys()]).toEqual(['timestamp', 'snapshot', 'targets', `delegated/${role}`]);
  });
});

describe('rollback', () => {
  beforeEach(async () => {
    await repo.publish('targets', 'snapshot', 'timestamp');
    await device.refresh();
  });

  it('refuses an older timestamp', async () => {
    repo.timestamp.version = 0;
    await repo.publish('timestamp');
    expect(await device.outcome()).toBe('ERR_INLAY_ROLLBACK');
    expect(device.versions()).toEqual(all(2));
  });

  it.each([false, true])('refuses an older snapshot (hashes: %s)', async (usesHashes) => {
    repo.usesHashes = usesHashes;
    repo.snapshot.version = 0;
    await repo.publish('snapshot', 'timestamp');
    expect(await device.outcome()).toBe('ERR_INLAY_ROLLBACK');
    expect(device.versions()).toEqual(all(2));
    expect(repo.requests.at(-1)).toBe('timestamp.json');
  });

  it.each([false, true])('refuses older targets (hashes: %s)', async (usesHashes) => {
    repo.usesHashes = usesHashes;
    repo.targets.version = 0;
    await repo.publish('targets', 'snapshot', 'timestamp');
    expect(await device.outcome()).toBe('ERR_INLAY_ROLLBACK');
    expect(device.versions()).toEqual({ ...all(2), timestamp: 3 });
  });

  it('refuses a snapshot that leaves a role out', async () => {
    await repo.delegate('targets', 'team');
    await repo.publish('team', 'targets', 'snapshot', 'timestamp');
    await device.refresh();
    delete repo.snapshot.meta['team.json'];
    await repo.publish('snapshot', 'timestamp');
    expect(await device.outcome()).toBe('ERR_INLAY_ROLLBACK');
    expect(device.versions()).toMatchObject({ snapshot: 3 });
  });
});

describe('a rotation of the online keys', () => {
  it.each(['timestamp', 'snapshot'] as const)(
    'of %s drops both files from the store at once',
    async (role) => {
      const [kept, old, added] = [
        await newSimulatedSigner(),
        await newSimulatedSigner(),
        await newSimulatedSigner(),
      ];
      repo.setKeys(role, kept, old);
      await repo.publish('root', 'snapshot', 'timestamp');
      await device.refresh();
      repo.setKeys(role, kept, added);
      await repo.publish('root');
      repo.files.delete('timestamp.json');
      expect(await device.outcome()).toBe('ERR_INLAY_HTTP_STATUS');
      expect([...device.records.keys()]).toEqual(['root.2', 'targets', 'root.3']);
    },
  );

  it('is none where the same keys are listed in another order', async () => {
    const signers = [await newSimulatedSigner(), await newSimulatedSigner()];
    repo.setKeys('timestamp', ...signers);
    await repo.publish('root', 'timestamp');
    await device.refresh();
    repo.setKeys('timestamp', ...signers.slice().reverse());
    await repo.publish('root');
    repo.files.delete('timestamp.json');
    expect(await device.outcome()).toBe('ERR_INLAY_HTTP_STATUS');
    expect(device.records.has('timestamp')).toBe(true);
  });
});

describe('delegations', () => {
  type Edge = [delegator: string, name: string, delegation?: { paths?: string[]; terminating?: boolean }];
  const py = { paths: ['*.py'] };
  const end = { terminating: true };
  const graphs: [string, Edge[], string][] = [
    ['one role', [['targets', 'A']], 'A'],
    [
      'two roles in order',
      [
        ['targets', 'A'],
        ['targets', 'B'],
      ],
      'A B',
    ],
    [
      'a role below the second',
      [
        ['targets', 'A'],
        ['targets', 'B'],
        ['B', 'C'],
      ],
      'A B C',
    ],
    [
      'depth before breadth',
      [
        ['targets', 'A'],
        ['targets', 'B'],
        ['A', 'C'],
        ['A', 'D'],
      ],
      'A C D B',
    ],
    [
      'depth before breadth, three levels',
      [
        ['targets', 'A'],
        ['targets', 'B'],
        ['A', 'C'],
        ['C', 'D'],
      ],
      'A C D B',
    ],
    [
      'a terminating delegation ends the search',
      [
        ['targets', 'A'],
        ['targets', 'B'],
        ['A', 'C', end],
        ['A', 'D'],
      ],
      'A C',
    ],
    [
      'what is below a terminating delegation is searched',
      [
        ['targets', 'A'],
        ['targets', 'B'],
        ['A', 'C', end],
        ['C', 'D'],
      ],
      'A C D',
    ],
    [
      'branches for other paths are left out',
      [
        ['targets', 'A', py],
        ['targets', 'B'],
        ['A', 'C'],
      ],
      'B',
    ],
    [
      'deeper branches for other paths are left out',
      [
        ['targets', 'A'],
        ['targets', 'B'],
        ['A', 'C', py],
        ['C', 'D'],
      ],
      'A B',
    ],
    [
      'a circle is gone through once',
      [
        ['targets', 'A'],
        ['targets', 'B'],
        ['B', 'C'],
        ['C', 'D'],
        ['D', 'B'],
      ],
      'A B C D',
    ],
    [
      'a role that two delegate to is asked for once',
      [
        ['targets', 'A'],
        ['targets', 'B'],
        ['B', 'C'],
        ['A', 'C'],
      ],
      'A C B',
    ],
    [
      'a role that two delegate to, the first for other paths',
      [
        ['targets', 'A'],
        ['targets', 'B'],
        ['B', 'C'],
        ['A', 'C', py],
      ],
      'A B C',
    ],
  ];
  it.each(graphs)('are searched in order: %s', async (_, edges, order) => {
    const roles = new Set(['targets']);
    for (const [delegator, name, delegation] of edges) {
      await repo.delegate(delegator, name, delegation);
      roles.add(name);
    }
    await repo.publish(...[...roles].reverse(), 'snapshot', 'timestamp');
    expect(await device.outcome(device.download('missing'))).toContain('Nobody lists');
    const asked = repo.requests.filter((name) => /^1\.[A-Z]\.json$/.test(name)).map((name) => name.charAt(2));
    expect(asked.join(' ')).toBe(order);
    repo.requests.length = 0;
    await device.outcome(device.download('missing'));
    // What was verified stays, so it is not asked for again.
    expect(repo.requests).toEqual(['2.root.json', 'timestamp.json']);
  });

  const searches: [path: string, listedBy: string, found: boolean, visited: string][] = [
    ['targetfile', 'targets', true, ''],
    ['README.md', 'A', true, 'A'],
    ['releases/README.md', 'A', false, ''],
    ['foo-1.tgz', 'A', true, 'A'],
    ['foo-alpha.tgz', 'A', false, ''],
    ['README.MD', 'A', false, ''],
    ['releases/x/x_v1', 'C', true, 'B C'],
    ['releases/y/y_v1.zip', 'D', true, 'B D'],
    ['releases/z/z_v1.zip', 'D', false, 'B'],
  ];
  it.each(searches)('lead to %s of %s: %s', async (path, listedBy, found, visited) => {
    await repo.delegate('targets', 'A', { paths: ['*.doc', '*.md', 'foo-?.tgz'] });
    await repo.delegate('targets', 'B', { paths: ['releases/*/*'] });
    await repo.delegate('B', 'C', { paths: ['releases/x/*'] });
    await repo.delegate('B', 'D', { paths: ['releases/y/*.zip'] });
    await repo.addTarget(listedBy, path, content);
    await repo.publish('A', 'B', 'C', 'D', 'targets', 'snapshot', 'timestamp');
    expect((await device.outcome(device.download(path))) === 'ok').toBe(found);
    const asked = repo.requests.filter((name) => /^1\.[A-Z]\.json$/.test(name)).map((name) => name.charAt(2));
    expect(asked.join(' ')).toBe(visited);
  });

  it('verify a role by each delegator, whoever it was reached by before', async () => {
    await repo.delegate('targets', 'parent-a', { paths: ['team-a/*'] });
    await repo.delegate('targets', 'parent-b', { paths: ['team-b/*'] });
    await repo.delegate('parent-a', 'release', { paths: ['team-a/*'] });
    await repo.delegate('parent-b', 'release', { paths: ['team-b/*'] });
    const both = repo.signers.get('release') ?? [];
    repo.signers.set('release', both.slice(0, 1));
    await repo.addTarget('release', 'team-a/file', content);
    await repo.addTarget('release', 'team-b/file', content);
    await repo.publish('release', 'parent-a', 'parent-b', 'targets', 'snapshot', 'timestamp');
    expect(await device.outcome(device.download('team-a/file', 'team-b/file'))).toBe('ERR_INLAY_SIGNATURE');
    // Neither does a new start, with the role in the store.
    expect(await device.outcome(device.download('team-a/file'))).toBe('ok');
    expect(await device.outcome(device.download('team-b/file'))).toBe('ERR_INLAY_SIGNATURE');
    repo.signers.set('release', both);
    await repo.publish('release', 'snapshot', 'timestamp');
    repo.requests.length = 0;
    expect(await device.download('team-a/file', 'team-b/file')).toEqual([content, content]);
    expect(repo.requests.filter((name) => name === '2.release.json')).toHaveLength(1);
  });

  it('of a file that another one replaces no longer count', async () => {
    await repo.delegate('targets', 'team');
    await repo.delegate('team', 'member');
    await repo.publish('member', 'team', 'targets', 'snapshot', 'timestamp');
    const trusted = await device.refresh();
    const fileOf = (name: string): Uint8Array => repo.files.get(name) ?? new Uint8Array();
    await trusted.updateDelegated('targets', 'team', fileOf('1.team.json'));
    await trusted.updateDelegated('team', 'member', fileOf('1.member.json'));
    expect(trusted.delegated('team', 'member')).toBeDefined();
    // Without hashes in the snapshot there may be two files of one version.
    const team = repo.targetsOf('team');
    const other = await newSimulatedSigner();
    if (team.delegations) team.delegations.keys = { [other.keyid]: other.key };
    for (const role of team.delegations?.roles ?? []) role.keyids = [other.keyid];
    await trusted.updateDelegated('targets', 'team', await repo.sign('team'));
    expect(trusted.delegated('team', 'member')).toBeUndefined();
    expect(Object.keys(trusted.export())).not.toContain('delegated/member');
  });

  it('to a role that the snapshot does not list are not followed', async () => {
    await repo.delegate('targets', 'team');
    await repo.publish('team', 'targets');
    delete repo.snapshot.meta['team.json'];
    await repo.publish('snapshot', 'timestamp');
    await device.refresh();
    repo.requests.length = 0;
    expect(await device.outcome(device.download('file'))).toBe('ERR_INLAY_METADATA_INVALID');
    expect(repo.requests).toEqual(['2.root.json', 'timestamp.json']);
    expect(device.records.has('delegated/team')).toBe(false);
  });

  it('end after 32 roles', async () => {
    for (let i = 0; i < 33; i += 1) await repo.delegate('targets', `role-${i}`);
    const names = Array.from({ length: 33 }, (_, i) => `role-${i}`);
    await repo.publish(...names, 'targets', 'snapshot', 'timestamp');
    await repo.addTarget('role-31', 'file', content);
    await repo.publish('role-31', 'snapshot', 'timestamp');
    expect(await device.download('file')).toEqual([content]);
    expect(await device.outcome(device.download('missing'))).toBe('ERR_INLAY_METADATA_INVALID');
  });

  it('may go by the hash of a path', async () => {
    // printf file | sha256sum
    const hash = '3b9c358f36f0a31b6ad3e14f309c7cf198ac9246e8316f9ce543d5b19ac02b80';
    await repo.delegate('targets', 'other', { path_hash_prefixes: ['00', '3b9d'] });
    await repo.delegate('targets', 'hashed', { path_hash_prefixes: ['ff', hash.slice(0, 3).toUpperCase()] });
    await repo.addTarget('hashed', 'file', content);
    await repo.publish('other', 'hashed', 'targets', 'snapshot', 'timestamp');
    expect(await device.download('file')).toEqual([content]);
    expect(repo.requests).not.toContain('1.other.json');
  });

  it('may be split among bins by hash (TAP 15)', async () => {
    const signer = await newSimulatedSigner();
    const role = { keyids: [signer.keyid], threshold: 1 };
    repo.targets.delegations = {
      keys: { [signer.keyid]: signer.key },
      succinct_roles: { ...role, bit_length: 5, name_prefix: 'bin' },
    };
    // The hash of `file` begins with 3b: its first five bits are 00111.
    const bin = 'bin-07';
    repo.bodies.set(bin, { ...repo.targets, version: 0, targets: {}, delegations: undefined });
    repo.signers.set(bin, [signer]);
    await repo.addTarget(bin, 'file', content);
    const body = repo.bodies.get(bin);
    delete body?.['delegations'];
    await repo.publish(bin, 'targets', 'snapshot', 'timestamp');
    expect(await device.download('file')).toEqual([content]);
    const trusted = await device.refresh();
    await expect(trusted.updateDelegated('targets', 'bin-20', content)).rejects.toThrow();
  });

  it('whose keys were taken away no longer count', async () => {
    await repo.delegate('targets', 'team');
    await repo.addTarget('team', 'file', content);
    await repo.publish('team', 'targets', 'snapshot', 'timestamp');
    await device.download('file');
    const other = await newSimulatedSigner();
    const { delegations } = repo.targets;
    if (delegations) {
      delegations.keys = { [other.keyid]: other.key };
      for (const role of delegations.roles ?? []) role.keyids = [other.keyid];
    }
    await repo.publish('targets', 'snapshot', 'timestamp');
    expect(await device.outcome(device.download('file'))).toBe('ERR_INLAY_SIGNATURE');
  });
});

describe('key rotations', () => {
  interface Step {
    keys: number[];
    threshold: number;
    sigs: number[];
  }
  const step = (keys: number[], threshold: number, sigs: number[]): Step => ({ keys, threshold, sigs });
  const five = [0, 1, 2, 3, 4];
  const roots: [string, Step[], boolean][] = [
    ['one key for another', [step([1], 1, [1]), step([2], 1, [2, 1]), step([2], 1, [2])], true],
    [
      'with signatures that nobody needs',
      [step([1], 1, [3, 1, 4]), step([2], 1, [3, 2, 1, 4]), step([2], 1, [3, 2, 4])],
      true,
    ],
    [
      '3 of 5, by several combinations',
      [
        step(five, 3, [0, 2, 4]),
        step(five, 3, [0, 4, 1]),
        step(five, 3, [0, 1, 3]),
        step(five, 3, [0, 1, 3]),
      ],
      true,
    ],
    ['3 of 5, one replaced', [step(five, 3, [0, 2, 4]), step([0, 1, 3, 4, 5], 3, [0, 4, 1])], true],
    [
      '3 of 5, one replaced and used at once',
      [step(five, 3, [0, 2, 4]), step([0, 1, 3, 4, 5], 3, [0, 2, 4, 5]), step([0, 1, 3, 4, 5], 3, [0, 4, 5])],
      true,
    ],
    [
      '3 of 5, all replaced',
      [
        step(five, 3, [0, 2, 4]),
        step([5, 6, 7, 8, 9], 3, [0, 2, 4, 5, 6, 7]),
        step([5, 6, 7, 8, 9], 3, [5, 6, 7]),
      ],
      true,
    ],
    ['from 1 of 3 to 2 of 3', [step([1, 2, 3], 1, [1]), step([1, 2, 3], 2, [1, 2])], true],
    [
      'from 2 of 3 to 1 of 3',
      [step([1, 2, 3], 2, [1, 2]), step([1, 2, 3], 1, [1, 2]), step([1, 2, 3], 1, [1])],
      true,
    ],
    ['from 1 of 1 to 2 of 2', [step([1], 1, [1]), step([1, 2], 2, [1, 2])], true],
    ['not signed by the old key', [step([1], 1, [1]), step([2], 1, [2, 3, 4])], false],
    ['not signed by the new key', [step([1], 1, [1]), step([2], 1, [1, 3, 4])], false],
    [
      '3 of 5, not signed by 3 new keys',
      [step(five, 3, [0, 2, 4]), step([0, 1, 3, 4, 5], 3, [0, 2, 4])],
      false,
    ],
    [
      '3 of 5, not signed by 3 old keys',
      [step(five, 3, [0, 2, 4]), step([0, 1, 3, 4, 5], 3, [0, 4, 5])],
      false,
    ],
    ['to 2 of 3, below the new threshold', [step([1, 2, 3], 1, [1]), step([1, 2, 3], 2, [2])], false],
    ['to 1 of 3, below the old threshold', [step([1, 2, 3], 2, [1, 2]), step([1, 2, 3], 1, [1])], false],
  ];
  const newSigners = (): Promise<SimulatedSigner[]> =>
    Promise.all(Array.from({ length: 10 }, () => newSimulatedSigner()));
  const pick = (signers: SimulatedSigner[], indices: number[]): SimulatedSigner[] =>
    indices.flatMap((i) => signers[i] ?? []);

  it.each(roots)('of root: %s', async (_, steps, isTaken) => {
    const signers = await newSigners();
    repo.root.version = 0;
    for (const { keys, threshold, sigs } of steps) {
      repo.setKeys('root', ...pick(signers, keys));
      repo.signers.set('root', pick(signers, sigs));
      repo.root.roles.root.threshold = threshold;
      await repo.publish('root');
    }
    device = repo.device();
    expect(await device.outcome()).toBe(isTaken ? 'ok' : 'ERR_INLAY_SIGNATURE');
    expect(device.versions()['root']).toBe(steps.length - (isTaken ? 0 : 1));
  });

  const others: [string, Step, boolean][] = [
    ['one key for another', step([2], 1, [2]), true],
    ['with signatures that nobody needs', step([1], 1, [3, 1, 4]), true],
    ['not signed by the new key', step([2], 1, [1, 3, 4]), false],
    ['a signature by the wrong key', step([0, 1, 3, 4, 5], 3, [0, 2, 4]), false],
    ['below the threshold', step([0, 1, 3, 4, 5], 3, [0, 4]), false],
    ['first three', step(five, 3, [0, 1, 2]), true],
    ['every other', step(five, 3, [0, 2, 4]), true],
    ['last three', step(five, 3, [2, 3, 4]), true],
    ['out of order', step(five, 3, [4, 0, 1]), true],
    ['all', step(five, 3, five), true],
  ];
  describe.each(['timestamp', 'snapshot', 'targets'] as const)('of %s', (role) => {
    it.each(others)('%s', async (_, { keys, threshold, sigs }, isTaken) => {
      const signers = await newSigners();
      await device.refresh();
      repo.setKeys(role, ...pick(signers, keys));
      repo.signers.set(role, pick(signers, sigs));
      repo.root.roles[role].threshold = threshold;
      await repo.publish('root', 'targets', 'snapshot', 'timestamp');
      expect(await device.outcome()).toBe(isTaken ? 'ok' : 'ERR_INLAY_SIGNATURE');
      if (isTaken) expect(device.versions()).toEqual({ ...all(2), root: 2 });
    });
  });
});
