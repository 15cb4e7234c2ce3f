import { generateKeyPairSync } from 'node:crypto';
import { chmod, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { hand, startWithKeys, type Person } from './cli-keys-fixture.ts';
import { expectOk, verify } from './server-fixture.ts';

const passphrase = 'correct horse battery staple';
const keyFile = (person: Person, name: string): string => join(person.keys, name);

describe('sealed key files', () => {
  it('hold no private key that can be read, and sign with the passphrase only', async () => {
    const { server, alice, newPerson } = await startWithKeys('--no-passphrase');
    const bob = await newPerson();
    await writeFile(join(bob.cwd, 'secret'), `${passphrase}\nanother line\n`);
    await bob.ok('export', '--new', '--passphrase-file', 'secret', '--out', 'bob.json');
    const text = await readFile(keyFile(bob, 'root.key.json'), 'utf8');
    expect(text).not.toContain('private');
    expect(JSON.parse(text)).toMatchObject({
      public: expect.stringMatching(/^[0-9a-f]{64}$/),
      sealed: { v: 1, kdf: 'scrypt', n: 131_072, r: 8, p: 1, cipher: 'aes-256-gcm' },
    });
    await alice.ok('rotate', '--add-public', join(bob.cwd, 'bob.json'), '--draft');
    const name = 'root.2.draft.json';
    await hand(keyFile(alice, name), bob, name);

    const locked = await bob.run('sign', name);
    expect(locked.err).toMatch(
      /root\.key\.json is sealed; set INLAY_KEY_PASSPHRASE.*\(ERR_INLAY_UNAUTHORIZED\)$/,
    );
    bob.env['INLAY_KEY_PASSPHRASE'] = 'wrong';
    const wrong = await bob.run('sign', name);
    expect(wrong).toMatchObject({ code: 1 });
    expect(wrong.err).toMatch(/The passphrase does not open .*root\.key\.json.*\(ERR_INLAY_UNAUTHORIZED\)$/);
    expect(wrong.err).not.toContain('wrong');
    bob.env['INLAY_KEY_PASSPHRASE'] = passphrase;
    await bob.ok('sign', name);
    await alice.ok('install', keyFile(bob, name));
    await verify(server);
  });

  it('are what a terminal gives, which is asked once for all keys and again for a wrong answer', async () => {
    const { server, alice, newPerson } = await startWithKeys('--no-passphrase');
    const asked: string[] = [];
    const bob = await newPerson();
    const answers = [passphrase, passphrase];
    bob.answer = (question) => {
      asked.push(question);
      return answers.shift() ?? '';
    };
    await bob.ok('init', '--online-key', server.onlineKey.key.keyval.public);
    expect(asked).toEqual(['Passphrase for the new keys (empty: none): ', 'The same again: ']);
    answers.push('oops', passphrase);
    await bob.ok('rotate', '--add-root', '1', '--draft', '--server', 'http://127.0.0.1:9');
    expect(asked.slice(2)).toHaveLength(2);
    answers.push('one', 'two');
    const differ = await bob.run('export', '--new', '--role', 'targets');
    expect(differ.err).toMatch(/The two passphrases differ/);
    expect((await bob.files()).filter((name) => name.startsWith('targets') && name.includes('key'))).toEqual([
      'targets.key.json',
    ]);
    for (const name of (await bob.files()).filter((file) => file.endsWith('.key.json'))) {
      expect(await readFile(keyFile(bob, name), 'utf8')).toContain('"sealed"');
    }
    expect(alice.answer).toBeUndefined();
  });

  it('say so when nobody sealed them', async () => {
    const { newPerson, server } = await startWithKeys();
    const bob = await newPerson();
    const out = await bob.ok('init', '--online-key', server.onlineKey.key.keyval.public);
    expect(out).toMatch(/^The key files are plain: /m);
  });
});

describe('keys of the environment', () => {
  it('sign where there are no key files, sealed or not', async () => {
    const { server, alice } = await startWithKeys();
    for (const role of ['root', 'targets'] as const) {
      const file = keyFile(alice, `${role}.key.json`);
      alice.env[`INLAY_${role.toUpperCase()}_KEY`] = await readFile(file, 'utf8');
      await rm(file);
    }
    await alice.ok('renew');
    await verify(server);
    expect(await alice.ok('status')).toContain('INLAY_ROOT_KEY');
    const secret = alice.env['INLAY_ROOT_KEY'] ?? '';
    alice.env['INLAY_ROOT_KEY'] = secret.slice(0, -20);
    const { err } = await alice.run('renew');
    expect(err).toMatch(/^error: The key file INLAY_ROOT_KEY is damaged/);
    expect(err).not.toContain(secret.slice(80, 100));
  });
});

/** A program that keeps a key of some kind, and does what its last words say. */
async function writeHook(person: Person, kind: 'ec' | 'rsa' | 'ed25519', behaviour = ''): Promise<string> {
  const pair =
    kind === 'ec'
      ? generateKeyPairSync('ec', { namedCurve: 'P-256' })
      : kind === 'rsa'
        ? generateKeyPairSync('rsa', { modulusLength: 2048 })
        : generateKeyPairSync('ed25519');
  const pem = pair.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;
  const publicPem = pair.publicKey.export({ type: 'spki', format: 'pem' }) as string;
  await writeFile(join(person.cwd, 'kms.pem'), pem);
  await writeFile(join(person.cwd, 'kms.pub'), publicPem);
  const path = join(person.cwd, 'kms.cjs');
  const lines = [
    "const { readFileSync, writeFileSync } = require('node:fs');",
    "const { constants, sign } = require('node:crypto');",
    "const at = (name) => require('node:path').join(__dirname, name);",
    'const [first, second] = process.argv.slice(2);',
    "if (first === 'public') {",
    "  process.stdout.write(second === 'targets' ? readFileSync(at('kms.pub')) : '00'.repeat(32));",
    '} else {',
    `  ${behaviour}`,
    "  const key = { key: readFileSync(at('kms.pem')), padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 };",
    `  const input = readFileSync(0);`,
    `  const made = sign(${kind === 'ed25519' ? 'undefined' : "'sha256'"}, input, ${kind === 'rsa' ? 'key' : 'key.key'});`,
    `  process.stdout.write(made.toString(${kind === 'rsa' ? "'base64'" : "'hex'"}) + '\\n');`,
    '}',
  ];
  await writeFile(path, lines.join('\n'));
  await chmod(path, 0o700);
  return path;
}

describe('programs that sign', () => {
  it.each(['ec', 'rsa', 'ed25519'] as const)('sign targets with a key of type %s', async (kind) => {
    const { server, alice } = await startWithKeys();
    alice.env['INLAY_SIGN_COMMAND'] = `${process.execPath} ${await writeHook(alice, kind)}`;
    await alice.ok('export', '--command', '--role', 'targets', '--out', 'kms.json');
    await alice.ok('rotate', '--add-public', 'kms.json');
    await rm(keyFile(alice, 'targets.key.json'));
    const [own] = (await alice.root()).roles.targets.keyids;
    await alice.ok('rotate', '--remove', own ?? '');
    expect((await alice.root()).roles.targets.keyids).toHaveLength(1);
    await alice.ok('renew');
    const { targets } = await verify(server);
    expect(targets.version).toBe(3);
  });

  it.each([
    [
      'fails',
      "console.error('no such key'); process.exit(7);",
      /ended with 7: no such key; .*\(ERR_INLAY_REFUSED\)$/,
    ],
    ['hangs', 'setTimeout(() => {}, 60_000); return;', /did not end in time .*\(ERR_INLAY_REFUSED\)$/],
    [
      'lies',
      "process.stdout.write('ab'.repeat(64)); return;",
      /is no signature of its key .*\(ERR_INLAY_SIGNATURE\)$/,
    ],
    ['babbles', "process.stdout.write('x'.repeat(200_000)); return;", /\(ERR_INLAY_(REFUSED|SIGNATURE)\)$/],
    ['says nothing', 'return;', /\(ERR_INLAY_SIGNATURE\)$/],
    [
      'signs something else',
      "process.stdout.write(require('node:crypto').sign(undefined, Buffer.from('x'), readFileSync(at('kms.pem'))).toString('hex')); return;",
      /\(ERR_INLAY_SIGNATURE\)$/,
    ],
  ])('change nothing when one %s', async (what, behaviour, message) => {
    const { server, alice } = await startWithKeys();
    const script = await writeHook(alice, 'ed25519');
    const setTime = (timeoutMs: number): Promise<void> =>
      writeFile(
        keyFile(alice, 'signers.json'),
        JSON.stringify({ command: [process.execPath, script], roles: ['targets'], timeoutMs }),
      );
    await setTime(60_000);
    await alice.ok('export', '--command', '--role', 'targets', '--out', 'kms.json');
    const [own = ''] = (await alice.root()).roles.targets.keyids;
    await alice.ok('rotate', '--add-public', 'kms.json', '--remove', own);
    const text = await readFile(script, 'utf8');
    await writeFile(script, text.replace(/^ {2}$/m, `  ${behaviour}`));
    if (what === 'hangs') await setTime(500);
    const { code, err } = await alice.run('renew', '--targets-only');
    expect(code).toBe(1);
    expect(err).toMatch(message);
    expect(await expectOk(server.admin('status'))).toMatchObject({ root: 2, targets: 2 });
    await writeFile(script, text);
    await setTime(60_000);
    await alice.ok('renew', '--targets-only');
    await verify(server);
  });

  it('are named wrongly with a word on how to name them', async () => {
    const { alice } = await startWithKeys();
    await rm(keyFile(alice, 'targets.key.json'));
    alice.env['INLAY_SIGN_COMMAND'] = '/nowhere/kms';
    expect((await alice.run('renew', '--targets-only')).err).toMatch(
      /kms cannot be run .*\(ERR_INLAY_REFUSED\)$/,
    );
    expect(await alice.run('status')).toMatchObject({
      code: 0,
      err: expect.stringMatching(/kms cannot be run/) as string,
    });
    alice.env['INLAY_SIGN_COMMAND'] = '["kms",]';
    expect((await alice.run('renew', '--targets-only')).err).toMatch(
      /There is no signing command in INLAY_SIGN_COMMAND/,
    );
  });
});
