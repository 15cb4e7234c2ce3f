import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { cp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { describe, expect, it, onTestFinished } from 'vitest';
import { runCommand } from '../../src/cli/program.ts';
import type { Terminal } from '../../src/cli/terminal.ts';
import { fromUtf8 } from '../../src/core/bytes.ts';
import type { KeyFile } from '../../src/publish/signer.ts';
import type { ServerStatus } from '../../src/server/index.ts';
import {
  expectOk,
  randomBytes,
  sha256,
  startTestServer,
  temporaryDirectory,
  testPlatform,
  tinyModel,
  verify,
  type TestServer,
} from './server-fixture.ts';

const main = fileURLToPath(new URL('../../build/cli/main.js', import.meta.url));

interface Result {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** A user in a folder of their own. */
interface User {
  readonly cwd: string;
  /** Runs `inlay` in this process. */
  run(...args: string[]): Promise<Result>;
  /** Runs a command that must succeed and print JSON. */
  json<Value>(...args: string[]): Promise<Value>;
  write(name: string, bytes: Uint8Array): Promise<void>;
}

async function createUser(env: Terminal['env'] = {}, folder?: string): Promise<User> {
  const cwd = folder ?? (await temporaryDirectory());
  const run = async (...args: string[]): Promise<Result> => {
    const out: string[] = [];
    const err: string[] = [];
    const code = await runCommand(args, {
      print: (text) => out.push(text),
      printError: (text) => err.push(text),
      env,
      cwd,
      interrupted: () => Promise.resolve(),
    });
    return { code, out: out.join('\n'), err: err.join('\n') };
  };
  return {
    cwd,
    run,
    json: async <Value>(...args: string[]) => {
      const { code, out, err } = await run(...args, '--json');
      if (code !== 0) throw new Error(`inlay ${args.join(' ')} ends with ${code}: ${err}`);
      return JSON.parse(out) as Value;
    },
    write: (name, bytes) => writeFile(join(cwd, name), bytes),
  };
}

/** A server in the present and a user who knows it. */
async function startForUser(): Promise<{ server: TestServer; user: User }> {
  const server = await startTestServer({ platform: testPlatform(Date.now()) });
  return { server, user: await createUser({ INLAY_SERVER: server.url, INLAY_TOKEN: server.token }) };
}

/** An address where nothing listens. */
async function urlOfNobody(): Promise<string> {
  const { url, close } = await startTestServer();
  await close();
  return url;
}

describe('inlay', () => {
  it('takes a model from the first key to every device', async () => {
    const { server, user } = await startForUser();
    await user.write('digits.onnx', tinyModel('one'));
    await user.write('Digits v2.onnx', tinyModel('two'));

    const init = await user.run('keys', 'init');
    expect(init).toMatchObject({ code: 0, err: '' });
    expect(init.out).toContain(join(user.cwd, 'inlay-keys', 'root.json'));
    expect(init.out).toContain('npx inlay publish');

    const published = await user.run(
      'publish',
      '--no-check',
      'digits.onnx',
      '--name',
      'digits',
      '--version',
      '1.0.0',
    );
    expect(published).toMatchObject({ code: 0, err: '' });
    expect(published.out).toContain('models/digits/1/digits.onnx');
    expect(published.out).toContain(sha256(tinyModel('one')));
    expect(published.out).toContain('npx inlay rollout set digits 1.0.0 --percent');
    expect(await user.run('rollout', 'set', 'digits', '1.0.0', '--percent', '100')).toMatchObject({
      code: 0,
    });
    const args = ['--name', 'digits', '--version', '1.1.0', '--notes', 'Reads sevens with a bar.'];
    expect(await user.json('publish', '--no-check', 'Digits v2.onnx', ...args)).toMatchObject({
      model: 'digits',
      version: '1.1.0',
      path: 'models/digits/2/digits-v2.onnx',
      sha256: sha256(tinyModel('two')),
      targets: 3,
    });
    expect((await user.run('rollout', 'set', 'digits', '1.1.0', '--percent', '12.5')).out).toContain(
      '12.5 %',
    );

    const { targets, plans } = await verify(server);
    expect(targets.targets['models/digits/2/digits-v2.onnx']?.custom).toEqual({
      model: 'digits',
      version: '1.1.0',
      seq: 2,
      notes: 'Reads sevens with a bar.',
      manifest: expect.objectContaining({ path: 'models/digits/2/release.json' }) as unknown,
    });
    expect(plans).toMatchObject([{ bp: 1250, base: { version: '1.0.0' }, cand: { version: '1.1.0' } }]);
    const list = await user.run('rollout', 'list');
    expect(list.out.split('\n').at(-1)).toMatch(/^stable +digits +1\.1\.0 +ramp +12\.5 % +1\.0\.0$/);
    expect(await user.json('rollout', 'list')).toEqual({ stable: plans });
    expect((await user.run('status')).out).toMatch(/root 1, targets 3, 4 blobs/);
    expect(await user.json('status')).toEqual(await expectOk(server.admin('status')));
  });

  it('keeps private keys to their owner and never shows them', async () => {
    const { server, user } = await startForUser();
    const { out } = await user.run('keys', 'init');
    const folder = join(user.cwd, 'inlay-keys');
    expect((await stat(folder)).mode & 0o777).toBe(0o700);
    expect((await readdir(folder)).sort()).toEqual([
      'root.json',
      'root.key.json',
      'targets.json',
      'targets.key.json',
    ]);
    for (const role of ['root', 'targets']) {
      const path = join(folder, `${role}.key.json`);
      expect((await stat(path)).mode & 0o777).toBe(0o600);
      const { private: secret } = JSON.parse(await readFile(path, 'utf8')) as { private: string };
      expect(out).not.toContain(secret);
      await writeFile(path, `{"private":"${secret}",,}`);
    }
    await user.write('a.onnx', tinyModel('a'));
    const { code, err } = await user.run('publish', '--no-check', 'a.onnx', '--name', 'a', '--version', '1');
    expect(code).toBe(1);
    expect(err).toMatch(/^error: The key file .* is damaged/);
    const online = JSON.parse(await readFile(join(server.dataDir, 'online-key.json'), 'utf8')) as KeyFile;
    expect(online.private).toMatch(/^[\w+/=]{60,}$/);
    for (const path of ['/v1/online-key', '/v1/tip']) {
      expect(await (await server.get(path)).text()).not.toContain(online.private);
    }
  });

  it('does not overwrite keys, and makes none when the server says no', async () => {
    const { server, user } = await startForUser();
    const stranger = await createUser({ INLAY_SERVER: server.url, INLAY_TOKEN: 'inlay_wrong' });
    const refused = await stranger.run('keys', 'init');
    expect(refused).toMatchObject({ code: 1, out: '' });
    expect(refused.err).toMatch(/^error: .*token.*\(ERR_INLAY_UNAUTHORIZED\)$/);
    expect(await readdir(stranger.cwd)).toEqual([]);

    expect(await user.run('keys', 'init')).toMatchObject({ code: 0 });
    const root = await readFile(join(user.cwd, 'inlay-keys', 'root.key.json'));
    const again = await user.run('keys', 'init');
    expect(again.err).toContain('(ERR_INLAY_CONFLICT)');
    expect(await readFile(join(user.cwd, 'inlay-keys', 'root.key.json'))).toEqual(root);
    const elsewhere = await user.run('keys', 'init', '--keys', 'others');
    expect(elsewhere.err).toMatch(/The server has a root already/);
    expect(await readdir(user.cwd)).toEqual(['inlay-keys']);
  });

  it('sends nobody to install keys of which there is no root', async () => {
    const { user } = await startForUser();
    await user.run('keys', 'init');
    expect((await user.run('keys', 'init')).err).toContain('`inlay keys install`');
    await rm(join(user.cwd, 'inlay-keys', 'root.json'));
    const again = await user.run('keys', 'init');
    expect(again.err).toMatch(
      /root\.key\.json exists .*choose another folder with --keys\. \(ERR_INLAY_CONFLICT\)$/,
    );
  });

  it('creates everything without a network for a ceremony, and installs it later', async () => {
    const { server, user } = await startForUser();
    const offline = await createUser({ INLAY_SERVER: await urlOfNobody() }, user.cwd);
    const hex = server.onlineKey.key.keyval.public;
    expect(await offline.json('keys', 'init', '--online-key', hex)).toMatchObject({ installed: false });
    // What travels to the server's network are the public files.
    for (const role of ['root', 'targets']) await rm(join(user.cwd, 'inlay-keys', `${role}.key.json`));
    expect(await user.run('keys', 'install')).toMatchObject({ code: 0, err: '' });
    expect(await user.run('keys', 'install')).toMatchObject({ code: 0, err: '' });
    await verify(server);
  });

  it('refuses what is not a model and sends nothing', async () => {
    const { server, user } = await startForUser();
    await user.run('keys', 'init');
    await user.write('noise.onnx', randomBytes(1000));
    await user.write('empty.onnx', new Uint8Array());
    await user.write('cut.onnx', tinyModel('cut').subarray(0, 8));
    for (const file of ['noise.onnx', 'empty.onnx', 'cut.onnx', 'missing.onnx', '.']) {
      const { code, out, err } = await user.run(
        'publish',
        '--no-check',
        file,
        '--name',
        'digits',
        '--version',
        '1.0.0',
      );
      expect([code, out]).toEqual([1, '']);
      expect(err).toMatch(/^error: .*\(ERR_INLAY_MODEL_[A-Z_]+\)$/);
    }
    expect(await expectOk(server.admin('status'))).toMatchObject({ targets: 1, blobs: { count: 0 } });
  });

  it('names the file of a release after that of the model, as far as a target can be named so', async () => {
    const { user } = await startForUser();
    await user.run('keys', 'init');
    for (const [file, target] of [
      ['Über Model (2).ONNX', 'ber-model-2-.onnx'],
      [`${'x'.repeat(20)}-${'y'.repeat(122)}.onnx`, `${'y'.repeat(122)}.onnx`],
      ['---', 'model.onnx'],
    ] as const) {
      await user.write(file, tinyModel(target.slice(0, 20)));
      const flags = ['--name', 'a', '--version', target];
      const { path } = await user.json<{ path: string }>('publish', '--no-check', `./${file}`, ...flags);
      expect(path.split('/').at(-1)).toBe(target);
    }
  });

  it('publishes the same again without a change, and never another content under a version', async () => {
    const { server, user } = await startForUser();
    await user.run('keys', 'init');
    await user.write('a.onnx', tinyModel('a'));
    await user.write('b.onnx', tinyModel('b'));
    const first = await user.json<object>(
      'publish',
      '--no-check',
      'a.onnx',
      '--name',
      'digits',
      '--version',
      '1.0.0',
    );
    const again = await user.json(
      'publish',
      '--no-check',
      'a.onnx',
      '--name',
      'digits',
      '--version',
      '1.0.0',
    );
    expect(again).toEqual({ ...first, isUnchanged: true });
    const other = await user.run('publish', '--no-check', 'b.onnx', '--name', 'digits', '--version', '1.0.0');
    expect(other.err).toContain('(ERR_INLAY_CONFLICT)');
    for (const flags of [
      ['--name', 'Digits', '--version', '1.0.0'],
      ['--name', 'digits', '--version', '1 0'],
    ]) {
      expect((await user.run('publish', '--no-check', 'a.onnx', ...flags)).err).toContain(
        '(ERR_INLAY_REFUSED)',
      );
    }
    expect(await expectOk(server.admin('status'))).toMatchObject({ targets: 2, blobs: { count: 2 } });
  });

  it('lands both of two publishers who race', async () => {
    const { server, user } = await startForUser();
    await user.run('keys', 'init');
    const versions = ['1', '2', '3', '4', '5', '6'];
    for (const version of versions) await user.write(`${version}.onnx`, tinyModel(version));
    const results = await Promise.all(
      versions.map((version) =>
        user.run('publish', '--no-check', `${version}.onnx`, '--name', 'm', '--version', version),
      ),
    );
    expect(results.map(({ err }) => err)).toEqual(versions.map(() => ''));
    const { models, targets } = (await expectOk(server.admin('status'))) as ServerStatus;
    expect(models['m']?.map(({ version }) => version).sort()).toEqual(versions);
    expect(targets).toBe(7);
    await verify(server);
  });

  it('signs nothing upon metadata that its root does not verify', async () => {
    const { user } = await startForUser();
    const { server: impostor, user: other } = await startForUser();
    await user.run('keys', 'init');
    await other.run('keys', 'init');
    await user.write('a.onnx', tinyModel('a'));
    const flags = ['--name', 'a', '--version', '1', '--server', impostor.url, '--token', impostor.token];
    const { code, err } = await user.run('publish', '--no-check', 'a.onnx', ...flags);
    expect(code).toBe(1);
    expect(err).toContain('(ERR_INLAY_SIGNATURE)');
    expect(await expectOk(impostor.admin('status'))).toMatchObject({ targets: 1, blobs: { count: 0 } });
  });

  it('signs nothing upon metadata older than what it saw', async () => {
    const { server, user } = await startForUser();
    const { platform, token } = server;
    await user.run('keys', 'init');
    for (const version of ['1', '2', '3']) await user.write(`${version}.onnx`, tinyModel(version));
    await user.json('publish', '--no-check', '1.onnx', '--name', 'a', '--version', '1');
    await server.close();
    const backup = join(await temporaryDirectory(), 'data');
    await cp(server.dataDir, backup, { recursive: true });
    const forward = await startTestServer({ dataDir: server.dataDir, token, platform });
    const flags = ['--server', forward.url];
    await user.json('publish', '--no-check', '2.onnx', '--name', 'a', '--version', '2', ...flags);
    await user.json('publish', '--no-check', '2.onnx', '--name', 'a', '--version', '2', ...flags);

    const restored = await startTestServer({ dataDir: backup, token, platform });
    const publish = (): Promise<Result> =>
      user.run('publish', '--no-check', '3.onnx', '--name', 'a', '--version', '3', '--server', restored.url);
    expect((await publish()).err).toContain('(ERR_INLAY_ROLLBACK)');
    expect(await expectOk(restored.admin('status'))).toMatchObject({ targets: 2 });
    const verified = join(user.cwd, 'inlay-keys', 'verified.json');
    await writeFile(verified, '{"broken');
    expect((await publish()).err).toMatch(/verified\.json .* is damaged; delete it/);
    await rm(verified);
    expect(await publish()).toMatchObject({ code: 0, err: '' });
  });

  it('goes back with the earlier version and says how when a share would fall', async () => {
    const { user } = await startForUser();
    await user.run('keys', 'init');
    await user.write('a.onnx', tinyModel('a'));
    await user.run('publish', '--no-check', 'a.onnx', '--name', 'a', '--version', '1');
    await user.run('rollout', 'set', 'a', '1', '--percent', '50%');
    const { code, err } = await user.run('rollout', 'set', 'a', '1', '--percent', '10');
    expect(code).toBe(1);
    expect(err).toMatch(/cannot fall from 50 % to 10 %.*\(ERR_INLAY_REFUSED\)$/);
    expect((await user.run('rollout', 'set', 'a', '7', '--percent', '10')).err).toMatch(/it has 1\. \(ERR_/);
  });

  it('says what to do when there is no server, no token or another server', async () => {
    const user = await createUser();
    expect((await user.run('status')).err).toMatch(
      /--token, or set INLAY_TOKEN.*\(ERR_INLAY_UNAUTHORIZED\)$/,
    );
    const nobody = await user.run('status', '--token', 'x', '--server', await urlOfNobody());
    expect(nobody.err).toMatch(/cannot be reached; start it with `inlay server`.*\(ERR_INLAY_NETWORK\)$/);
    expect((await user.run('status', '--token', 'x', '--server', 'localhost')).err).toMatch(
      /^error: .*not a URL/,
    );
    expect((await user.run('status', '--token', 'x\ny')).err).toMatch(
      /^error: The admin token has characters/,
    );
    const { url } = await startTestServer();
    const page = await user.run('status', '--token', 'x', '--server', `${url}/healthz`);
    expect(page.err).toContain('(ERR_INLAY_NOT_FOUND)');
  });

  it('shows the stack only when asked', async () => {
    const args = ['status', '--token', 'x', '--server', await urlOfNobody()];
    const quiet = await (await createUser()).run(...args);
    expect(quiet.err.split('\n')).toHaveLength(1);
    const { err } = await (await createUser({ INLAY_DEBUG: '1' })).run(...args);
    expect(err).toContain('at ');
    expect(err).toContain('ECONNREFUSED');
  });

  it.each([
    ['an unknown command', ['bogus']],
    ['an unknown option', ['status', '--bogus']],
    ['a missing option', ['publish', 'a.onnx', '--name', 'a']],
    ['a missing argument', ['inspect']],
    ['a port that is none', ['server', '--port', '70000']],
    ['a share that is none', ['rollout', 'set', 'a', '1', '--percent', '101']],
    ['a share in other digits', ['rollout', 'set', 'a', '1', '--percent', '0x10']],
    ['a key that is none', ['keys', 'init', '--online-key', 'xyz']],
  ])('ends with 2 and says why for %s', async (_what, args) => {
    const { code, out, err } = await (await createUser()).run(...args);
    expect([code, out]).toEqual([2, '']);
    expect(err).toMatch(/^error: /);
  });

  it('explains every command', async () => {
    const user = await createUser();
    const { code, out } = await user.run('--help');
    expect(code).toBe(0);
    for (const command of ['server', 'keys', 'publish', 'rollout', 'status', 'inspect'])
      expect(out).toContain(command);
    for (const args of [['publish'], ['keys', 'init'], ['rollout', 'set'], ['server'], ['inspect']]) {
      const help = await user.run(...args, '--help');
      expect(help.code).toBe(0);
      expect(help.out).toMatch(/^Usage: inlay /);
    }
    const version = JSON.parse(await readFile(new URL('../../package.json', import.meta.url), 'utf8')) as {
      version: string;
    };
    expect(await user.run('--version')).toEqual({ code: 0, out: version.version, err: '' });
  });
});

describe('inlay inspect', () => {
  it('shows what is inside a model', async () => {
    const user = await createUser();
    await user.write('a.onnx', tinyModel('factory'));
    const { code, out } = await user.run('inspect', 'a.onnx');
    expect(code).toBe(0);
    expect(out).toContain('factory');
    expect(out).toMatch(/opsets +ai\.onnx 17/);
    expect(await user.json('inspect', 'a.onnx')).toMatchObject({
      sizeBytes: tinyModel('factory').length,
      opsets: { 'ai.onnx': 17 },
      producer: { name: 'factory' },
    });
  });

  it('shows names that would steer a terminal as text', async () => {
    const user = await createUser();
    const title = '\u001b]0;title\u0007\u009b2J';
    await user.write('a.onnx', tinyModel(title));
    const { out } = await user.run('inspect', 'a.onnx');
    expect(out).toContain('\\u001b]0;title\\u0007\\u009b2J');
    expect(out).not.toMatch(/[^\P{Cc}\n]/u);
    expect(await user.json('inspect', 'a.onnx')).toMatchObject({ producer: { name: title } });
  });
});

describe('the built binary', () => {
  it('serves until it is told to stop, and takes commands meanwhile', async () => {
    const cwd = await temporaryDirectory();
    const child = spawn(process.execPath, [main, 'server', '--port', '0'], {
      cwd,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    onTestFinished(() => {
      child.kill('SIGKILL');
    });
    const lines: string[] = [];
    for await (const line of createInterface(child.stdout)) {
      lines.push(line);
      if (line.includes('inlay publish')) break;
    }
    const token = lines.find((line) => /^ {2}inlay_/.test(line))?.trim();
    const url = /http:\S+/.exec(lines[0] ?? '')?.[0];
    const env = { ...process.env, INLAY_TOKEN: token, INLAY_SERVER: url };
    const inlay = (...args: string[]): { status: number | null; stdout: string; stderr: string } =>
      spawnSync(process.execPath, [main, ...args], { cwd, env, encoding: 'utf8' });
    await writeFile(join(cwd, 'a.onnx'), tinyModel('a'));
    expect(inlay('keys', 'init')).toMatchObject({ status: 0, stderr: '' });
    expect(inlay('publish', '--no-check', 'a.onnx', '--name', 'a', '--version', '1.0.0')).toMatchObject({
      status: 0,
      stderr: '',
    });
    expect(inlay('rollout', 'set', 'a', '1.0.0', '--percent', '100')).toMatchObject({
      status: 0,
      stderr: '',
    });
    expect(JSON.parse(inlay('status', '--json').stdout)).toMatchObject({ root: 1, targets: 2 });
    expect(inlay('status', '--token', 'wrong')).toMatchObject({ status: 1, stdout: '' });
    expect(inlay('bogus').status).toBe(2);
    const exit = once(child, 'exit');
    child.kill('SIGINT');
    expect(await exit).toEqual([0, null]);
  });

  it('is a script that the shell can run', async () => {
    expect(fromUtf8(await readFile(main)).startsWith('#!/usr/bin/env node\n')).toBe(true);
  });
});
