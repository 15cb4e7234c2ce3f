import { createHash } from 'node:crypto';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { DeviceStatus } from '../../src/cli/device-status.ts';
import { runCommand } from '../../src/cli/program.ts';
import type { Store } from '../../src/core/store.ts';
import { nodePlatform } from '../../src/platform-node.ts';
import { openFsStore } from '../../src/stores/fs.ts';
import { openEventLog } from '../../src/update/events.ts';
import { DEFAULT_TRIAL, type PlanEntry } from '../../src/update/plan.ts';
import { openSlots, type Slots } from '../../src/update/slots.ts';
import { installId } from '../../src/update/state.ts';
import { createSync } from '../../src/update/sync.ts';
import { startUser, type User } from './cli-user.ts';
import { scale } from './publish-fixture.ts';
import { sha256, temporaryDirectory } from './server-fixture.ts';

/** A device that has looked at a server with two releases of `digits`. */
interface Device {
  readonly user: User;
  readonly directory: string;
  readonly store: Store;
  readonly slots: Slots;
  readonly install: string;
  /** Writes the log. */
  flush(): Promise<void>;
  status(...args: readonly string[]): Promise<string>;
  read(): Promise<DeviceStatus>;
}

function entryOf(seq: number): PlanEntry {
  const bytes = scale(seq);
  const path = `models/digits/${seq}/digits.onnx`;
  return { path, sha256: sha256(bytes), length: bytes.length, seq, version: `1.${seq}.0` };
}

function slotOf(seq: number): Parameters<Slots['embed']>[0] {
  const release = entryOf(seq);
  return { release, file: { sha256: release.sha256, length: release.length } };
}

async function startDevice(): Promise<Device> {
  const user = await startUser();
  for (const seq of [1, 2]) {
    await user.write('digits.onnx', scale(seq));
    await user.ok('publish', 'digits.onnx', '--name', 'digits', '--version', `1.${seq}.0`, '--no-check');
  }
  await user.ok('rollout', 'set', 'digits', '1.1.0', '--percent', '100');
  const directory = join(await temporaryDirectory(), 'cache');
  const store = openFsStore({ directory });
  const platform = nodePlatform();
  const root = await readFile(user.path('inlay-keys/root.json'), 'utf8');
  const sync = createSync({ platform, store, url: user.server.url, root });
  await sync.check();
  await sync.stop();
  const events = openEventLog({ store, platform });
  const slots = openSlots({
    store,
    owner: sync.owner,
    model: 'digits',
    platform,
    sdk: '0.1.0',
    app: undefined,
    events,
  });
  const install = await installId(platform, store);
  return {
    user,
    directory,
    store,
    slots,
    install,
    flush: () => events.flush(),
    status: (...args) => user.ok('status', '--store', directory, ...args),
    read: () => user.json('status', '--store', directory),
  };
}

/** Every file of a folder with its content. */
async function contentOf(directory: string): Promise<readonly string[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  const hashes = files.sort().map(async (path) => {
    const hash = createHash('sha256').update(await readFile(path));
    return `${path} ${hash.digest('hex')}`;
  });
  return Promise.all(hashes);
}

describe('inlay status --store', () => {
  it('shows slots, trial, rejections and events of a device', async () => {
    const { slots, flush, status, read, install } = await startDevice();
    await slots.embed(slotOf(1));
    await slots.stage(slotOf(2), { plan: 'r-1', rules: DEFAULT_TRIAL, retryNonce: 0 });
    const { trial } = await slots.read();
    if (trial === undefined) throw new Error('Nothing is on trial.');
    await slots.loaded(await slots.beginLoad('trial', trial));
    await flush();
    const shown = await status();
    expect(shown).toContain(`install ${install}`);
    expect(shown).toMatch(
      new RegExp(
        `^trial +1\\.2\\.0 +2 .* 0 answers, 20 needed; 0 failed; \\d+ s of service, 60 s needed; open in process ${process.pid}$`,
        'm',
      ),
    );
    expect(shown).toMatch(/^embedded +1\.1\.0 +1 /m);
    expect(shown).toMatch(/ digits +activated +1\.2\.0 /);

    await slots.reject(entryOf(2).sha256, 'invalid-outputs', '2 of 5 answers had no finite numbers.');
    await flush();
    expect(await status()).toMatch(/^1\.2\.0 +invalid-outputs +.* 2 of 5 answers had no finite numbers\.$/m);
    const { models, events } = await read();
    expect(models).toMatchObject([
      { model: 'digits', channel: 'stable', slots: { rejected: [{ version: '1.2.0', count: 1 }] } },
    ]);
    expect(events.map(({ type }) => type)).toContain('rejected');
    await slots.close();
  });

  it('marks what is withdrawn', async () => {
    const { slots, status } = await startDevice();
    await slots.embed(slotOf(1));
    await slots.forgetWithdrawn({ revoked: [1] });
    const shown = await status();
    expect(shown).toMatch(/^embedded +1\.1\.0 .* withdrawn$/m);
    expect(shown).toMatch(/^withdrawn releases: seq 1$/m);
  });

  it('says what was open when a process ended, and counts strikes', async () => {
    const { slots, store, status } = await startDevice();
    await slots.stage(slotOf(2), { plan: 'r-1', rules: DEFAULT_TRIAL, retryNonce: 0 });
    const { trial } = await slots.read();
    if (trial === undefined) throw new Error('Nothing is on trial.');
    const token = await slots.beginLoad('trial', trial);
    await slots.failedLoad(token, 'crash', 'It is gone.');
    await slots.beginLoad('trial', trial);
    const name = (await recordNames(store)).find((one) => one.startsWith('slots-digits-')) ?? '';
    await store.updateRecord(name, (bytes) =>
      Buffer.from(
        Buffer.from(bytes ?? [])
          .toString()
          .replaceAll(`"run":"${process.pid}-`, '"run":"0-'),
      ),
    );
    expect(await status()).toMatch(
      /^trial .* waits for its activation; 1 of 2 strikes; was opening when its process ended$/m,
    );
  });

  it('shows versions and expiry of the metadata, of which the first root is the app’s', async () => {
    const device = await startDevice();
    const { channels } = await device.read();
    expect(channels.map(({ channel }) => channel)).toEqual(['stable']);
    const versions = channels[0]?.roles.map(({ role, version }) => [role, version]);
    expect(versions).toEqual([
      ['root', 1],
      ['timestamp', expect.any(Number)],
      ['snapshot', expect.any(Number)],
      ['targets', 3],
      ['rollout', expect.any(Number)],
    ]);
    expect(channels[0]?.roles.every(({ isExpired }) => !isExpired)).toBe(true);
    const shown = await device.status();
    expect(shown).toMatch(/^root +1 +as the app says$/m);
    expect(shown).toMatch(/^targets +3 +20\d\d-\d\d-\d\dT/m);
  });

  it('shows files by the names that were signed, whether they are needed, and downloads that are not done', async () => {
    const { store, status, read } = await startDevice();
    await store.putBlob(sha256(scale(1)), scale(1));
    await store.pin('sync-digits', [sha256(scale(1))]);
    await store.putBlob(sha256(Buffer.from('other')), Buffer.from('other'));
    const { sha256: name, length } = entryOf(2);
    const part = await store.openPartial(name, length);
    await part.write(0, scale(2).subarray(0, 10));
    await part.save(new Uint8Array(1));
    const shown = await status();
    expect(shown).toMatch(/^models\/digits\/1\/digits\.onnx +\d+ B +needed$/m);
    expect(shown).toMatch(new RegExp(`^${sha256(Buffer.from('other')).slice(0, 12)} +5 B +may go$`, 'm'));
    expect(shown).toMatch(new RegExp(`^models/digits/2/digits\\.onnx +\\d+ B of ${length} B +20`, 'm'));
    expect((await read()).downloads).toMatchObject([{ path: entryOf(2).path, sizeBytes: length }]);
    await part.close();
  });

  it('changes nothing in the store', async () => {
    const { slots, directory, flush, store, status, read } = await startDevice();
    await slots.embed(slotOf(1));
    await store.putBlob(sha256(scale(1)), scale(1));
    await flush();
    const before = await contentOf(directory);
    await status();
    await read();
    expect(await contentOf(directory)).toEqual(before);
    expect(before.length).toBeGreaterThan(3);
  });

  it('goes on where a record is damaged', async () => {
    const { slots, directory, status } = await startDevice();
    await slots.embed(slotOf(1));
    const records = join(directory, 'records');
    for (const file of await readdir(records)) {
      if (file.startsWith('update-events') || file.startsWith('sync-')) {
        await writeFile(join(records, file), 'no record');
      }
    }
    const shown = await status();
    expect(shown).toMatch(/^digits, channel stable$/m);
    expect(shown).toMatch(/^metadata of channel stable: none yet$/m);
  });

  it('shows as many events as are asked for', async () => {
    const { slots, flush, status } = await startDevice();
    await slots.embed(slotOf(1));
    await slots.stage(slotOf(2), { plan: 'r-1', rules: DEFAULT_TRIAL, retryNonce: 0 });
    await slots.reject(entryOf(2).sha256, 'golden', 'It is off.');
    await flush();
    expect(await status('--events', '1')).not.toContain('staged');
    expect(await status('--events', '1')).toMatch(/ digits +rejected +1\.2\.0 .*golden/);
    expect(await status('--events', '0')).not.toContain('at (UTC)  model');
  });

  it('takes INLAY_CACHE_DIR with --device, and says where there is no store', async () => {
    const { user, directory } = await startDevice();
    const missing = await user.run('status', '--store', 'nowhere');
    expect([missing.code, missing.err]).toEqual([
      1,
      expect.stringContaining(`${user.path('nowhere')}; name`),
    ]);
    const out: string[] = [];
    const code = await runCommand(['status', '--device'], {
      print: (text) => out.push(text),
      printError: (text) => out.push(text),
      env: { INLAY_CACHE_DIR: directory },
      cwd: user.cwd,
      interrupted: () => Promise.resolve(),
    });
    expect([code, out.join('\n')]).toEqual([0, expect.stringContaining(`${directory}\ninstall `)]);
  });
});

describe('inlay status', () => {
  it('marks releases that are withdrawn, of which no device of a complete rollout takes notice', async () => {
    const { user } = await startDevice();
    await user.ok('rollout', 'set', 'digits', '1.2.0', '--percent', '100');
    expect(await user.ok('revoke', 'digits', '1.1.0')).toBe('digits 1.1.0 is withdrawn.');
    const shown = await user.ok('status');
    expect(shown).toMatch(/^digits +1\.1\.0 +1 .* withdrawn$/m);
    expect(shown).toMatch(/^digits +1\.2\.0 +2 +\d+ B +[0-9a-f]{12}$/m);
  });

  it('warns all devices of a base that is withdrawn after a rollback', async () => {
    const { user } = await startDevice();
    await user.ok('rollout', 'set', 'digits', '1.2.0', '--percent', '10');
    await user.ok('rollout', 'rollback', 'digits');
    expect(await user.ok('revoke', 'digits', '1.1.0')).toContain(
      'Channel stable has 1.1.0 for all devices: ',
    );
  });
});

async function recordNames(store: Store): Promise<readonly string[]> {
  const files = await readdir(join(store.info().location ?? '', 'records'));
  return [...new Set(files.map((file) => file.replace(/\.[01]$/, '')))];
}
