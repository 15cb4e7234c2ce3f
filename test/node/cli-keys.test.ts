import { readFile, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { ServerStatus } from '../../src/server/index.ts';
import { hand, startWithKeys } from './cli-keys-fixture.ts';
import { expectOk, tinyModel, verify, type TestServer } from './server-fixture.ts';

const versionsOf = async (server: TestServer): Promise<[number, number]> => {
  const { root, targets } = (await expectOk(server.admin('status'))) as ServerStatus;
  return [root, targets];
};

/** Order of what was installed, oldest first. */
const installedOf = async (server: TestServer): Promise<string[]> => {
  const { records } = (await expectOk(server.admin('audit'))) as { records: { action: string }[] };
  return records
    .map(({ action }) => action)
    .filter((action) => action === 'root' || action === 'targets')
    .reverse();
};

describe('inlay keys rotate', () => {
  it('makes 2-of-3 of 1-of-1 in one command, and devices follow from the first root', async () => {
    const { server, alice } = await startWithKeys();
    const out = await alice.ok('rotate', '--add-root', '2');
    expect(out).toContain('Installed: root 2, targets 1.');
    const { roles } = await alice.root();
    expect(roles.root).toMatchObject({ threshold: 2 });
    expect(roles.root.keyids).toHaveLength(3);
    await verify(server);
    const files = await alice.files();
    expect(files.filter((name) => /^root(-[0-9a-f]{8})?\.key\.json$/.test(name))).toHaveLength(3);
    expect(files).toContain('root.1.json');
    expect(files.filter((name) => name.includes('draft') || name.endsWith('.part'))).toEqual([]);
    for (const name of files.filter((file) => file.endsWith('.key.json'))) {
      expect((await stat(join(alice.keys, name))).mode & 0o777).toBe(0o600);
    }
  });

  it('gathers the signatures of people who each hold one key', async () => {
    const { server, alice, newPerson } = await startWithKeys();
    const [bob, carol] = [await newPerson(), await newPerson()];
    await bob.ok('export', '--new', '--out', 'bob.json');
    await carol.ok('export', '--new', '--out', 'carol.json');
    expect((await stat(bob.keys)).mode & 0o777).toBe(0o700);
    await alice.ok('add', join(bob.cwd, 'bob.json'));
    const drafted = await alice.ok('rotate', '--add-public', join(carol.cwd, 'carol.json'), '--draft');
    expect(drafted).toContain('root: 2 of 3 keys');
    const name = 'root.2.draft.json';
    expect(await versionsOf(server)).toEqual([1, 1]);

    const early = await alice.run('install');
    expect(early.err).toMatch(/lacks signatures: 1 of the keys of root 2 .*\(ERR_INLAY_REFUSED\)$/);
    expect(await versionsOf(server)).toEqual([1, 1]);

    await hand(join(alice.keys, name), bob, name);
    const signed = await bob.ok('sign', name);
    // Whoever signs sees what, also where no earlier root is known.
    expect(signed).toMatch(/^ {2}targets: 1 of 1 keys {2}\+ [0-9a-f]{12}$/m);
    expect(signed).toContain('keys of root 2: 2 signed, 2 needed');
    expect(await bob.ok('sign', name)).toContain('Signed before.');
    await alice.ok('install', join(bob.keys, name));
    expect(await versionsOf(server)).toEqual([2, 1]);
    await verify(server);

    // Now nobody rotates alone.
    const alone = await alice.run('rotate', '--remove', (await alice.root()).roles.root.keyids[0] ?? '');
    expect(alone.err).toContain('lacks signatures');
    await hand(join(alice.keys, 'root.3.draft.json'), carol, 'root.3.draft.json');
    await hand(join(alice.keys, 'root.json'), carol, 'root.json');
    await carol.ok('sign', 'root.3.draft.json');
    await hand(join(carol.keys, 'root.3.draft.json'), bob, 'root.3.draft.json');
    await bob.ok('sign', 'root.3.draft.json');
    await alice.ok('install', join(bob.keys, 'root.3.draft.json'));
    expect(await versionsOf(server)).toEqual([3, 1]);
    await verify(server);
    expect(await alice.files()).not.toContain('root.key.json');
    expect(await readdir(join(alice.keys, 'retired'))).toHaveLength(1);
  });

  it('installs a draft by its name in the key folder, and says so when there is none', async () => {
    const { server, alice } = await startWithKeys();
    await alice.ok('rotate', '--threshold', '1', '--draft');
    const missing = await alice.run('install', 'root.9.draft.json');
    expect([missing.code, missing.err]).toEqual([
      1,
      expect.stringMatching(
        /There is no file root\.9\.draft\.json, neither here nor in .*\(ERR_INLAY_NOT_FOUND\)$/,
      ),
    ]);
    await alice.ok('sign', 'root.2.draft.json');
    await alice.ok('install', 'root.2.draft.json');
    expect(await versionsOf(server)).toEqual([2, 1]);
  });

  it('refuses to trust the key that the server still has', async () => {
    const { server, alice } = await startWithKeys();
    const { code, err } = await alice.run('rotate', '--online');
    expect([code, err]).toEqual([
      1,
      expect.stringMatching(
        /The server still has the key [0-9a-f]{12}; stop it, delete online-key\.json .*\(ERR_INLAY_REFUSED\)$/,
      ),
    ]);
    expect(await versionsOf(server)).toEqual([1, 1]);
    expect((await alice.files()).filter((name) => name.includes('draft'))).toEqual([]);
  });

  it('names a root.json that is damaged, and says how to restore it', async () => {
    const { alice } = await startWithKeys();
    const whole = await readFile(join(alice.keys, 'root.json'));
    await writeFile(join(alice.keys, 'root.json'), whole.subarray(0, 100));
    for (const args of [
      ['rotate', '--threshold', '1'],
      ['renew'],
      ['status'],
      ['status', '--offline'],
      ['install'],
    ]) {
      const { code, err } = await alice.run(...args);
      expect([code, err]).toEqual([
        1,
        expect.stringMatching(
          /root\.json is damaged; put a whole one in its place: .*\(ERR_INLAY_METADATA_INVALID\)$/,
        ),
      ]);
    }
    await writeFile(join(alice.keys, 'root.json'), whole);
    await alice.ok('status');
  });

  it('refuses to sign what is no draft, what is old, and what has no key here', async () => {
    const { alice, newPerson } = await startWithKeys();
    const stranger = await newPerson();
    await stranger.ok('export', '--new', '--out', 'x.json');
    await alice.ok('rotate', '--threshold', '1', '--draft');
    const draft = join(alice.keys, 'root.2.draft.json');
    const refused = await stranger.run('sign', draft);
    expect(refused.err).toMatch(/None of the keys at hand may sign .*\(ERR_INLAY_NOT_FOUND\)$/);
    expect((await alice.run('sign', join(alice.keys, 'root.key.json'))).err).toMatch(/is no draft of a root/);
    await alice.ok('install');
    expect((await alice.run('sign', join(alice.keys, 'root.json'))).err).toMatch(/is no next one/);
    expect((await alice.run('sign', 'nowhere.json')).err).toContain('(ERR_INLAY_NOT_FOUND)');
  });

  it('gives targets a new key without a moment in which devices have none to trust', async () => {
    const { server, alice } = await startWithKeys();
    const [before] = (await alice.root()).roles.targets.keyids;
    await alice.ok('rotate', '--targets');
    expect(await installedOf(server)).toEqual(['root', 'targets', 'targets', 'root']);
    expect(await versionsOf(server)).toEqual([2, 2]);
    const { targets } = await verify(server);
    expect(targets.version).toBe(2);
    const { keyids } = (await alice.root()).roles.targets;
    expect(keyids).toHaveLength(1);
    expect(keyids).not.toContain(before);
    expect(await readdir(join(alice.keys, 'retired'))).toEqual([`targets-${before?.slice(0, 8)}.key.json`]);
    await alice.ok('renew', '--targets-only');
    expect((await verify(server)).targets.version).toBe(3);
  });

  it('gathers signatures of targets, too, and installs nothing before there are enough', async () => {
    const { server, alice, newPerson } = await startWithKeys();
    const bob = await newPerson();
    await bob.ok('export', '--new', '--role', 'targets', '--out', 'bob.json');
    const both = ['--add-public', join(bob.cwd, 'bob.json'), '--targets-threshold', '2'];
    const alone = await alice.run('rotate', ...both);
    expect(alone.err).toMatch(/targets\.2\.draft\.json in .* lacks signatures: 1 of the keys of root 2/);
    expect(await versionsOf(server)).toEqual([1, 1]);
    expect(await alice.ok('status')).toMatch(/Draft of targets 2: lacks 1 of the keys of root 2/);
    for (const name of ['root.json', 'root.2.draft.json', 'targets.2.draft.json']) {
      await hand(join(alice.keys, name), bob, name);
    }
    await bob.ok('sign', 'targets.2.draft.json');
    await alice.ok('install', join(bob.keys, 'targets.2.draft.json'));
    expect(await versionsOf(server)).toEqual([2, 2]);
    expect((await alice.root()).roles.targets.threshold).toBe(2);
    await verify(server);
    const publish = ['publish', 'a.onnx', '--name', 'a', '--version', '1', '--no-check'];
    await writeFile(join(alice.cwd, 'a.onnx'), tinyModel('a'));
    expect((await alice.inlay(...publish)).err).toMatch(/needs 2 signatures, and only 1 of its keys/);
    alice.env['INLAY_TARGETS_KEY'] = await readFile(join(bob.keys, 'targets.key.json'), 'utf8');
    expect(await alice.inlay(...publish)).toMatchObject({ code: 0 });
    await verify(server);
  });

  it('replaces a targets key that is lost: the root first, then targets of the new key', async () => {
    const { server, alice } = await startWithKeys();
    await rm(join(alice.keys, 'targets.key.json'));
    await alice.ok('rotate', '--targets');
    expect(await installedOf(server)).toEqual(['root', 'targets', 'root', 'targets']);
    await verify(server);
  });

  it('replaces a lost key of three by the other two', async () => {
    const { server, alice } = await startWithKeys();
    await alice.ok('rotate', '--add-root', '2');
    const lost = (await alice.files()).find((name) => /^root-.*\.key\.json$/.test(name)) ?? '';
    const { public: publicKey } = JSON.parse(await readFile(join(alice.keys, lost), 'utf8')) as {
      public: string;
    };
    await rm(join(alice.keys, lost));
    const { keys } = await alice.root();
    const [keyid = ''] = Object.entries(keys).find(([, key]) => key.keyval.public === publicKey) ?? [];
    await alice.ok('rotate', '--remove', keyid.slice(0, 8), '--add-root', '1');
    const { roles } = await alice.root();
    expect(roles.root.threshold).toBe(2);
    expect(roles.root.keyids).toHaveLength(3);
    expect(roles.root.keyids).not.toContain(keyid);
    await verify(server);
  });

  it('says that somebody else rotated meanwhile, and goes on from there', async () => {
    const { server, alice, newPerson } = await startWithKeys();
    const bob = await newPerson();
    for (const name of await alice.files()) await hand(join(alice.keys, name), bob, name);
    await alice.ok('rotate', '--threshold', '1', '--draft');
    await bob.ok('rotate', '--add-root', '1');
    const late = await alice.run('install');
    expect(late.err).toMatch(/Somebody else installed root 2 meanwhile.*\(ERR_INLAY_CONFLICT\)$/);
    expect((await alice.root()).version).toBe(2);
    expect(await readdir(join(alice.keys, 'retired'))).toHaveLength(1);
    // Two keys, and this folder has one of them.
    expect((await alice.run('rotate', '--threshold', '1')).err).toContain('lacks signatures');
    expect(await versionsOf(server)).toEqual([2, 1]);
  });

  it.each([
    ['nothing', [], /There is nothing to change/],
    ['a threshold beyond its keys', ['--threshold', '3'], /threshold of 3 cannot be met with 1 keys/],
    ['a key that is not there', ['--remove', 'abcdef'], /There is no one key abcdef/],
    ['its only key away', ['--targets', '--remove', 'ROOT'], /cannot be met with 0 keys/],
  ])('refuses to change %s', async (_what, args, message) => {
    const { server, alice } = await startWithKeys();
    const [own = ''] = (await alice.root()).roles.root.keyids;
    const { code, err } = await alice.run('rotate', ...args.map((arg) => (arg === 'ROOT' ? own : arg)));
    expect(code).toBe(1);
    expect(err).toMatch(message);
    expect(await versionsOf(server)).toEqual([1, 1]);
    expect((await alice.files()).filter((name) => name.includes('draft'))).toEqual([]);
  });
});

describe('inlay keys renew', () => {
  it('signs root and targets anew in one command', async () => {
    const { server, alice } = await startWithKeys();
    const before = await alice.root();
    await alice.ok('renew');
    expect(await versionsOf(server)).toEqual([2, 2]);
    expect((await alice.root()).roles).toEqual(before.roles);
    await verify(server);
    expect(JSON.parse(await alice.ok('renew', '--targets-only', '--json'))).toEqual({
      root: 2,
      targets: 3,
      installed: ['targets'],
    });
  });
});

describe('inlay keys status', () => {
  it('shows who signs what until when, and ends with 3 when something is due', async () => {
    const { alice } = await startWithKeys();
    const { code, out, err } = await alice.run('status');
    expect([code, err]).toEqual([0, '']);
    expect(out).toMatch(/^root +1 +\d{4}-\d\d-\d\d +36[45] +1 of 1 +yes$/m);
    for (const role of ['targets', 'timestamp', 'snapshot', 'rollout']) expect(out).toContain(role);
    const due = await alice.run('status', '--warn-days', '200');
    expect(due.code).toBe(3);
    expect(due.out).toMatch(/targets: inlay keys renew$/);
    const { roles } = JSON.parse((await alice.run('status', '--json', '--warn-days', '400')).out) as {
      roles: { role: string; state: string; canSign: boolean }[];
    };
    expect(roles.map(({ role, state, canSign }) => [role, state, canSign])).toEqual([
      ['root', 'soon', true],
      ['targets', 'soon', true],
      ['timestamp', 'ok', false],
      ['snapshot', 'ok', false],
      ['rollout', 'ok', false],
    ]);
  });

  it('tells what it can without a server, and which drafts wait', async () => {
    const { server, alice } = await startWithKeys();
    await alice.ok('rotate', '--add-root', '1', '--draft');
    expect(await alice.ok('status')).toMatch(
      /Draft of root 2: lacks 1 of the keys of root 1 and 2 of the keys of root 2/,
    );
    await rm(join(alice.keys, 'root.key.json'));
    await server.close();
    const { code, out, err } = await alice.run('status');
    expect(code).toBe(0);
    expect(err).toMatch(/^Only the folder was looked at: .*\(ERR_INLAY_NETWORK\)$/);
    expect(out).toContain('elsewhere');
    expect((await alice.run('status', '--offline')).err).toBe('');
  });
});
