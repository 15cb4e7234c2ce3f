import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { fromUtf8 } from '../../../src/core/bytes.ts';
import { formatPublicKey, parsePublicKey } from '../../../src/publish/key-public.ts';
import { createKeyStatus } from '../../../src/publish/key-status.ts';
import { createTargets, expiresIn } from '../../../src/publish/release.ts';
import { compareRoots, countSignatures, withoutWrong } from '../../../src/publish/root-draft.ts';
import { createRoot, keysOf, nextRoot, nextTargets, type RootChange } from '../../../src/publish/root.ts';
import { addSignatures, mergeSignatures, signMetadata } from '../../../src/publish/sign.ts';
import type { NamedKey } from '../../../src/trust/keys.ts';
import { parseEnvelope } from '../../../src/trust/parse.ts';
import { verifySignatures } from '../../../src/trust/verify.ts';
import { testPlatform, testStart } from '../platform.ts';
import { newSigner } from './repository.ts';

const platform = testPlatform();
const expires = '2031-01-01T00:00:00Z';
const key = (digit: string): NamedKey => ({
  keyid: digit.repeat(64),
  key: { keytype: 'ed25519', scheme: 'ed25519', keyval: { public: digit.repeat(64) } },
});
const first = createRoot({ rootKeys: [key('1')], targetsKeys: [key('2')], onlineKey: key('3'), expires });

describe('nextRoot', () => {
  it('keeps everything but version and expiry when nothing changes', () => {
    const later = '2032-01-01T00:00:00Z';
    expect(nextRoot(first, { expires: later })).toEqual({ ...first, version: 2, expires: later });
  });

  it('asks for more than half of the root keys once their number changes', () => {
    const three = nextRoot(first, { expires, addRoot: [key('4'), key('5')] });
    expect(three.roles.root).toEqual({ keyids: ['1', '4', '5'].map((id) => id.repeat(64)), threshold: 2 });
    const replaced = nextRoot(three, { expires, remove: [key('4').keyid], addRoot: [key('6')] });
    expect(replaced.roles.root.threshold).toBe(2);
    expect(Object.keys(replaced.keys)).not.toContain(key('4').keyid);
    expect(nextRoot(three, { expires, rootThreshold: 3 }).roles.root.threshold).toBe(3);
  });

  it('gives timestamp and snapshot to a new online key, and otherwise to whoever has them', () => {
    const two = { ...first, roles: { ...first.roles, snapshot: { keyids: [key('1').keyid], threshold: 1 } } };
    expect(nextRoot(two, { expires }).roles.snapshot).toEqual(two.roles.snapshot);
    const next = nextRoot(two, { expires, onlineKey: key('9') });
    expect(next.roles.snapshot).toEqual({ keyids: [key('9').keyid], threshold: 1 });
    expect(next.roles.timestamp).toEqual(next.roles.snapshot);
  });

  it.each<[string, Omit<RootChange, 'expires'>]>([
    ['without root keys', { remove: [key('1').keyid] }],
    ['without targets keys', { remove: [key('2').keyid] }],
    ['with a threshold beyond its keys', { rootThreshold: 2 }],
    ['with a threshold of none', { targetsThreshold: 0 }],
    ['that takes away a key that has no role', { remove: [key('3').keyid] }],
  ])('refuses a root %s', (_, change) => {
    expect(() => nextRoot(first, { ...change, expires })).toThrow(
      expect.objectContaining({ code: 'ERR_INLAY_REFUSED' }) as Error,
    );
  });

  it('names every key of every role, and no other', () => {
    const digits = fc.uniqueArray(fc.constantFrom(...'456789abcdef'), { maxLength: 6 });
    fc.assert(
      fc.property(digits, digits, fc.boolean(), (roots, targets, online) => {
        const next = nextRoot(first, {
          expires,
          addRoot: roots.map(key),
          addTargets: targets.map(key),
          ...(online && { onlineKey: key('0') }),
        });
        const named = new Set(Object.values(next.roles).flatMap(({ keyids }) => keyids));
        expect(new Set(Object.keys(next.keys))).toEqual(named);
        expect(next.roles.root.threshold).toBeGreaterThan((next.roles.root.keyids.length - 1) / 2);
        expect(compareRoots(first, first)).toEqual([]);
        expect(compareRoots(first, next).find(({ role }) => role === 'root')?.added ?? []).toEqual(
          roots.map((digit) => digit.repeat(64)),
        );
      }),
    );
  });
});

describe('signatures that are gathered', () => {
  it('give the same bytes in whatever order and place they were made', async () => {
    const [a, b, c] = await Promise.all([newSigner(platform), newSigner(platform), newSigner(platform)]);
    const body = createRoot({ rootKeys: [a, b, c], targetsKeys: [a], onlineKey: c, expires });
    const draft = { signatures: [], signed: body };
    const [fromA, fromB] = [await addSignatures(draft, [a]), await addSignatures(draft, [b])];
    const merged = mergeSignatures(fromB, fromA);
    expect(merged).toEqual(parseEnvelope(await signMetadata(body, [b, a]), 'root'));
    await verifySignatures(platform, merged, 'root', body.keys, body.roles.root);
    expect(await countSignatures(platform, fromA, body, 'root')).toMatchObject({
      threshold: 2,
      valid: [a.keyid],
      missing: 1,
    });
    const other = { ...draft, signed: { ...body, expires: '2031-01-02T00:00:00Z' } };
    expect(() => mergeSignatures(draft, other)).toThrow(/two different drafts/);
  });

  it('count once for one key under two identifiers, and not at all if they are wrong', async () => {
    const [a, b] = [await newSigner(platform), await newSigner(platform)];
    const twin = { ...a, keyid: 'f'.repeat(64) };
    const body = createRoot({ rootKeys: [a, twin, b], targetsKeys: [a], onlineKey: b, expires });
    const signed = await addSignatures({ signatures: [], signed: body }, [a, twin]);
    expect((await countSignatures(platform, signed, body, 'root')).missing).toBe(1);
    const forged = {
      ...signed,
      signatures: [{ keyid: b.keyid, sig: 'ab'.repeat(64) }, ...signed.signatures],
    };
    expect((await countSignatures(platform, forged, body, 'root')).valid).not.toContain(b.keyid);
    expect(await withoutWrong(platform, forged, keysOf(body, 'root'))).toEqual(signed);
  });
});

describe('nextTargets', () => {
  it('keeps releases and delegation unless there is a new online key', () => {
    const targets = createTargets({ onlineKey: key('3'), expires });
    expect(nextTargets(targets, { expires })).toEqual({ ...targets, version: 2 });
    const moved = nextTargets(targets, { expires, onlineKey: key('4') });
    expect(moved.delegations?.roles).toMatchObject([{ name: 'rollout', keyids: [key('4').keyid] }]);
    expect(Object.keys(moved.delegations?.keys ?? {})).toEqual([key('4').keyid]);
  });
});

describe('parsePublicKey', () => {
  it('reads what it wrote, and the same key in other forms under the same identifier', async () => {
    const { keyid, key: publicKey } = await newSigner(platform);
    const read = (text: string): NamedKey => parsePublicKey(platform, text, 'here');
    expect(read(fromUtf8(formatPublicKey({ keyid, key: publicKey })))).toEqual({ keyid, key: publicKey });
    expect(read(` ${publicKey.keyval.public.toUpperCase()}\n`).keyid).toBe(keyid);
    const der = `302a300506032b6570032100${publicKey.keyval.public}`;
    const base64 = btoa(
      String.fromCharCode(...(der.match(/../g) ?? []).map((byte) => Number.parseInt(byte, 16))),
    );
    expect(read(`-----BEGIN PUBLIC KEY-----\n${base64}\n-----END PUBLIC KEY-----\n`).keyid).toBe(keyid);
  });

  it('takes the identifier from the key, whatever the file says', () => {
    const lie = JSON.stringify({ keyid: 'f'.repeat(64), key: key('1').key });
    expect(parsePublicKey(platform, lie, 'here').keyid).not.toBe('f'.repeat(64));
  });

  it('refuses anything else with a TypeError', () => {
    const texts = fc.oneof(
      fc.string(),
      fc.json(),
      fc.constant('{"key":{"keytype":"rsa","scheme":"ed25519","keyval":{"public":"00"}}}'),
      fc.constant('-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----'),
    );
    fc.assert(
      fc.property(texts, (text) => {
        expect(() => parsePublicKey(platform, text, 'here')).toThrow(TypeError);
      }),
    );
  });
});

describe('createKeyStatus', () => {
  const targets = createTargets({ onlineKey: key('3'), expires: expiresIn(testStart, 10) });
  const root = { ...first, expires: expiresIn(testStart, 100) };
  const at = (days: number, atHand: readonly NamedKey[] = []): ReturnType<typeof createKeyStatus> =>
    createKeyStatus({
      now: testStart + days * 86_400_000,
      warnDays: 30,
      root,
      bodies: { targets },
      atHand: atHand.map((one) => ({ ...one, where: 'root.key.json', isSealed: true })),
    });

  it('tells when a role is due, and when it is too late', () => {
    expect(at(0).map(({ role, state, daysLeft }) => [role, state, daysLeft])).toEqual([
      ['root', 'ok', 100],
      ['targets', 'soon', 10],
    ]);
    expect(at(10).map(({ state }) => state)).toEqual(['ok', 'expired']);
    expect(at(101.5).map(({ state, daysLeft }) => [state, daysLeft])).toEqual([
      ['expired', -2],
      ['expired', -92],
    ]);
  });

  it('tells who can do something about it', () => {
    const [here, there] = [at(90, [key('1')])[0], at(90)[0]];
    expect(here).toMatchObject({
      canSign: true,
      next: 'inlay keys renew',
      keys: [{ at: 'root.key.json', sealed: true }],
    });
    expect(there).toMatchObject({ canSign: false, next: expect.stringContaining('--draft') as string });
  });
});
