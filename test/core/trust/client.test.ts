import { beforeEach, describe, expect, it } from 'vitest';
import { fromUtf8, toUtf8 } from '../../../src/core/bytes.ts';
import {
  createRolloutTargets,
  createSnapshot,
  createTargets,
  createTimestamp,
  describeFile,
  expiresIn,
} from '../../../src/publish/release.ts';
import { signMetadata } from '../../../src/publish/sign.ts';
import type { Signer } from '../../../src/publish/signer.ts';
import { createTrustedMetadata, metadataCaps, type TrustedMetadata } from '../../../src/trust/client.ts';
import type { MetaFile } from '../../../src/trust/metadata.ts';
import { parseEnvelope } from '../../../src/trust/parse.ts';
import { testPlatform, testStart, type TestPlatform } from '../platform.ts';
import { createRepository, newSigner, type Repository } from '../publish/repository.ts';

const day = 86_400_000;

let platform: TestPlatform;
let repository: Repository;

beforeEach(async () => {
  platform = testPlatform();
  repository = await createRepository(platform);
});

const rootBytes = (version: number): Uint8Array => repository.roots[version - 1] ?? new Uint8Array();
const open = (stored: Record<string, string> = {}): Promise<TrustedMetadata> =>
  createTrustedMetadata({ platform, root: rootBytes(1), stored });
const updateAll = async (trusted: TrustedMetadata): Promise<void> => {
  const { files } = repository;
  await trusted.updateTimestamp(files.timestamp);
  await trusted.updateSnapshot(files.snapshot);
  await trusted.updateTargets(files.targets);
  await trusted.updateRollout(files.rollout);
};
const current = async (): Promise<TrustedMetadata> => {
  const trusted = await open();
  await updateAll(trusted);
  return trusted;
};
const failsWith = (code: string): unknown => expect.objectContaining({ name: 'TrustError', code });
/** Metadata with another body under the old signatures. */
const forge = (bytes: Uint8Array, change: (signed: Record<string, unknown>) => void): Uint8Array => {
  const envelope = JSON.parse(fromUtf8(bytes)) as { signed: Record<string, unknown> };
  change(envelope.signed);
  return toUtf8(JSON.stringify(envelope));
};

describe('a trusted set', () => {
  it('takes a whole repository and is current', async () => {
    const trusted = await current();
    trusted.assertCurrent();
    expect(trusted.targets?.version).toBe(1);
    expect(trusted.rollout?.targets).toHaveProperty(['rollout/stable.json']);
  });

  it('starts again from what it exported', async () => {
    await repository.rotateRoot({});
    const trusted = await open();
    await trusted.updateRoot(rootBytes(2));
    await updateAll(trusted);
    const again = await open(trusted.export());
    again.assertCurrent();
    expect(again.root.version).toBe(2);
    expect(again.export()).toEqual(trusted.export());
  });

  it('keeps the texts as they were received', async () => {
    const spaced = toUtf8(JSON.stringify(JSON.parse(fromUtf8(repository.files.timestamp)), null, 1));
    const trusted = await open();
    await trusted.updateTimestamp(spaced);
    expect(trusted.export()['timestamp']).toBe(fromUtf8(spaced));
  });

  it.each(['root.2', 'timestamp', 'snapshot', 'targets', 'rollout'])(
    'drops a stored %s that was damaged',
    async (role) => {
      await repository.rotateRoot({});
      const trusted = await open();
      await trusted.updateRoot(rootBytes(2));
      await updateAll(trusted);
      const again = await open({ ...trusted.export(), [role]: '{"damaged":true}' });
      expect(again.export()).not.toHaveProperty([role]);
      if (again.root.version === 1) await again.updateRoot(rootBytes(2));
      await updateAll(again);
      again.assertCurrent();
    },
  );

  it('refuses an app root that is not signed by itself', async () => {
    const root = forge(rootBytes(1), (signed) => (signed['version'] = 7));
    await expect(createTrustedMetadata({ platform, root })).rejects.toThrow(failsWith('ERR_INLAY_SIGNATURE'));
  });

  it('stays as it was when an update fails', async () => {
    const trusted = await current();
    const before = trusted.export();
    await repository.signAll();
    const bad = forge(repository.files.timestamp, (signed) => (signed['version'] = 99));
    await expect(trusted.updateTimestamp(bad)).rejects.toThrow(failsWith('ERR_INLAY_SIGNATURE'));
    await expect(trusted.updateSnapshot(repository.files.snapshot)).rejects.toThrow();
    expect(trusted.export()).toEqual(before);
    trusted.assertCurrent();
  });

  it('updates in no other order than root, timestamp, snapshot, targets, rollout', async () => {
    const trusted = await open();
    const { files } = repository;
    await expect(trusted.updateSnapshot(files.snapshot)).rejects.toThrow(
      failsWith('ERR_INLAY_METADATA_INVALID'),
    );
    await trusted.updateTimestamp(files.timestamp);
    await expect(trusted.updateTargets(files.targets)).rejects.toThrow(
      failsWith('ERR_INLAY_METADATA_INVALID'),
    );
    await trusted.updateSnapshot(files.snapshot);
    await expect(trusted.updateRollout(files.rollout)).rejects.toThrow(
      failsWith('ERR_INLAY_METADATA_INVALID'),
    );
  });

  it('is not current without the rollout that its snapshot lists', async () => {
    const trusted = await open();
    const { files } = repository;
    await trusted.updateTimestamp(files.timestamp);
    await trusted.updateSnapshot(files.snapshot);
    await trusted.updateTargets(files.targets);
    expect(() => {
      trusted.assertCurrent();
    }).toThrow(/rollout is missing/);
  });

  it('refuses a file that is pinned by a hash that it cannot compute', async () => {
    const { timestamp, snapshot } = await pin(undefined, (file) => ({ ...file, hashes: { sha512: 'ab' } }));
    const trusted = await open();
    await trusted.updateTimestamp(timestamp);
    await expect(trusted.updateSnapshot(snapshot)).rejects.toThrow(failsWith('ERR_INLAY_HASH'));
  });

  it('refuses a file whose version is not the pinned one', async () => {
    for (const [version, code] of [
      [versionsNow() - 1, 'ERR_INLAY_METADATA_INVALID'],
      [versionsNow() + 1, 'ERR_INLAY_ROLLBACK'],
    ] as const) {
      const { timestamp, snapshot } = await pin(undefined, (file) => ({ ...file, version }));
      const trusted = await open();
      await trusted.updateTimestamp(timestamp);
      await expect(trusted.updateSnapshot(snapshot)).rejects.toThrow(failsWith(code));
    }
  });

  it('takes the same timestamp version again for no change', async () => {
    const trusted = await current();
    const before = trusted.export();
    expect(await trusted.updateTimestamp(repository.files.timestamp)).toBe(false);
    expect(trusted.export()).toEqual(before);
  });
});

describe('root rotation', () => {
  it('follows a chain of roots to entirely new keys', async () => {
    const [d, e, f] = await Promise.all([newSigner(platform), newSigner(platform), newSigner(platform)]);
    const [a, b] = repository.root;
    if (!a || !b) throw new Error('Keys are missing.');
    await repository.rotateRoot({ root: [a, b, d] });
    await repository.rotateRoot({ root: [d, e, f] });
    const trusted = await open();
    await trusted.updateRoot(rootBytes(2));
    await trusted.updateRoot(rootBytes(3));
    expect(trusted.root.version).toBe(3);
    await updateAll(trusted);
    trusted.assertCurrent();
  });

  it('needs every version in order', async () => {
    await repository.rotateRoot({});
    await repository.rotateRoot({});
    const trusted = await open();
    await expect(trusted.updateRoot(rootBytes(3))).rejects.toThrow(failsWith('ERR_INLAY_ROLLBACK'));
    await expect(trusted.updateRoot(rootBytes(1))).rejects.toThrow(failsWith('ERR_INLAY_ROLLBACK'));
  });

  it('needs the threshold of the old root and that of the new one', async () => {
    const strangers = await Promise.all([newSigner(platform), newSigner(platform)]);
    const old = repository.root;
    await repository.rotateRoot({ root: strangers });
    const body = repository.rootBody;
    const trusted = await open();
    for (const signers of [
      strangers,
      old,
      [...strangers, ...old.slice(0, 1)],
      [...strangers.slice(0, 1), ...old],
    ]) {
      const bytes = await signMetadata(body, signers);
      await expect(trusted.updateRoot(bytes)).rejects.toThrow(failsWith('ERR_INLAY_SIGNATURE'));
      expect(trusted.root.version).toBe(1);
    }
    await trusted.updateRoot(await signMetadata(body, [...strangers, ...old.slice(0, 2)]));
    expect(trusted.root.version).toBe(2);
  });

  it('drops what the old online key signed', async () => {
    const trusted = await current();
    await repository.rotateRoot({ online: await newSigner(platform) });
    await trusted.updateRoot(rootBytes(2));
    expect(Object.keys(trusted.export())).toEqual(['root.2']);
    await repository.signAll();
    await updateAll(trusted);
    trusted.assertCurrent();
  });

  it('drops what one of several online keys signed when another one is rotated', async () => {
    const [second, third] = await Promise.all([newSigner(platform), newSigner(platform)]);
    const withOnline = async (version: number, signers: Signer[]): Promise<Uint8Array> => {
      const role = { keyids: signers.map(({ keyid }) => keyid), threshold: 1 };
      const { rootBody } = repository;
      const keys = { ...rootBody.keys, ...Object.fromEntries(signers.map(({ keyid, key }) => [keyid, key])) };
      const roles = { ...rootBody.roles, timestamp: role, snapshot: role };
      return signMetadata({ ...rootBody, version, keys, roles }, repository.root);
    };
    const trusted = await open();
    await trusted.updateRoot(await withOnline(2, [repository.online, second]));
    await updateAll(trusted);
    await trusted.updateRoot(await withOnline(3, [second, repository.online]));
    expect(trusted.timestamp?.version).toBe(1);
    await trusted.updateRoot(await withOnline(4, [repository.online, third]));
    expect(trusted.timestamp).toBeUndefined();
    expect(trusted.snapshot).toBeUndefined();
  });

  it('drops targets whose key was taken away', async () => {
    const trusted = await current();
    repository.targetsSigner = await newSigner(platform);
    await repository.rotateRoot({});
    await trusted.updateRoot(rootBytes(2));
    expect(trusted.targets).toBeUndefined();
    expect(trusted.rollout).toBeUndefined();
    expect(trusted.timestamp?.version).toBe(1);
    expect(() => {
      trusted.assertCurrent();
    }).toThrow(failsWith('ERR_INLAY_METADATA_INVALID'));
  });
});

describe('attacks (TUF 1.0 §1.5.2)', () => {
  it('arbitrary installation: refuses every role that its keys did not sign', async () => {
    const stranger = await newSigner(platform);
    const { files, targetsBody } = repository;
    const resign = (bytes: Uint8Array): Promise<Uint8Array> =>
      signMetadata((JSON.parse(fromUtf8(bytes)) as { signed: typeof targetsBody }).signed, [stranger]);
    const trusted = await open();
    const refused = failsWith('ERR_INLAY_SIGNATURE');
    await expect(trusted.updateTimestamp(await resign(files.timestamp))).rejects.toThrow(refused);
    await trusted.updateTimestamp(files.timestamp);
    // A pinned hash stops it before its signature is looked at.
    await expect(trusted.updateSnapshot(await resign(files.snapshot))).rejects.toThrow(
      failsWith('ERR_INLAY_HASH'),
    );
    await trusted.updateSnapshot(files.snapshot);
    await expect(trusted.updateTargets(await resign(files.targets))).rejects.toThrow(
      failsWith('ERR_INLAY_HASH'),
    );
  });

  it('arbitrary installation: the online key cannot sign targets, though it pins them', async () => {
    repository.targetsSigner = repository.online;
    await repository.signAll();
    const trusted = await open();
    const { files } = repository;
    await trusted.updateTimestamp(files.timestamp);
    await trusted.updateSnapshot(files.snapshot);
    await expect(trusted.updateTargets(files.targets)).rejects.toThrow(failsWith('ERR_INLAY_SIGNATURE'));
  });

  it('endless data: looks at no metadata beyond its cap', async () => {
    const trusted = await current();
    const refused = failsWith('ERR_INLAY_LENGTH');
    await expect(trusted.updateRoot(new Uint8Array(metadataCaps.root + 1))).rejects.toThrow(refused);
    await expect(trusted.updateTimestamp(new Uint8Array(metadataCaps.timestamp + 1))).rejects.toThrow(
      refused,
    );
    await expect(trusted.updateSnapshot(new Uint8Array(metadataCaps.snapshot + 1))).rejects.toThrow(refused);
    await expect(trusted.updateTargets(new Uint8Array(metadataCaps.targets + 1))).rejects.toThrow(refused);
    await expect(trusted.updateRollout(new Uint8Array(metadataCaps.rollout + 1))).rejects.toThrow(refused);
  });

  it('wrong software: the rollout role lists nothing outside rollout/', async () => {
    const signed = createRolloutTargets(platform, {
      version: repository.versions.rollout,
      expires: expiresIn(testStart, 7),
      channels: { stable: [] },
    });
    const path = 'models/digits/1/model.onnx';
    const target = signed.targets['rollout/stable.json'];
    if (!target) throw new Error('The channel is missing.');
    const evil = await signMetadata({ ...signed, targets: { [path]: target } }, [repository.online]);
    const trusted = await open();
    const { snapshot, timestamp } = await pin(evil);
    await trusted.updateTimestamp(timestamp);
    await trusted.updateSnapshot(snapshot);
    await trusted.updateTargets(repository.files.targets);
    await expect(trusted.updateRollout(evil)).rejects.toThrow(/not delegated/);
    expect(trusted.rollout).toBeUndefined();
  });

  it('key compromise: a stolen key below the threshold signs no root', async () => {
    const [stolen] = repository.root;
    if (!stolen) throw new Error('Keys are missing.');
    const body = { ...repository.rootBody, version: 2 };
    const trusted = await open();
    await expect(trusted.updateRoot(await signMetadata(body, [stolen]))).rejects.toThrow(
      failsWith('ERR_INLAY_SIGNATURE'),
    );
  });

  it('key compromise: the delegation names who signs rollout, not root', async () => {
    const other = await newSigner(platform);
    repository.targetsBody = {
      ...createTargets({ onlineKey: other, expires: repository.targetsBody.expires }),
      version: repository.targetsBody.version + 1,
    };
    await repository.signAll();
    const trusted = await open();
    await expect(updateAll(trusted)).rejects.toThrow(failsWith('ERR_INLAY_SIGNATURE'));
    expect(trusted.targets?.version).toBe(2);
    expect(trusted.rollout).toBeUndefined();
  });

  it('rollback: refuses an older timestamp', async () => {
    const old = repository.files.timestamp;
    await repository.signAll();
    const trusted = await current();
    await expect(trusted.updateTimestamp(old)).rejects.toThrow(failsWith('ERR_INLAY_ROLLBACK'));
  });

  it('rollback: refuses an older timestamp also if it names the same snapshot', async () => {
    const old = repository.files.timestamp;
    const { signed } = parseEnvelope(old, 'timestamp');
    const trusted = await open();
    await trusted.updateTimestamp(await signMetadata({ ...signed, version: 2 }, [repository.online]));
    await expect(trusted.updateTimestamp(old)).rejects.toThrow(failsWith('ERR_INLAY_ROLLBACK'));
  });

  it('rollback: refuses a newer timestamp with an older snapshot', async () => {
    await repository.signAll();
    const trusted = await current();
    repository.versions = { ...repository.versions, snapshot: 1 };
    await repository.signAll();
    await expect(trusted.updateTimestamp(repository.files.timestamp)).rejects.toThrow(
      failsWith('ERR_INLAY_ROLLBACK'),
    );
  });

  it('rollback: refuses a newer snapshot with older targets', async () => {
    await repository.release('digits', '1.0.0', Uint8Array.of(1));
    const trusted = await current();
    repository.targetsBody = { ...repository.targetsBody, version: 1 };
    await repository.signAll();
    await trusted.updateTimestamp(repository.files.timestamp);
    await expect(trusted.updateSnapshot(repository.files.snapshot)).rejects.toThrow(
      failsWith('ERR_INLAY_ROLLBACK'),
    );
  });

  it('rollback: holds across a restart, also when what was stored has expired', async () => {
    const old = { ...repository.files };
    await repository.signAll();
    const stored = (await current()).export();
    platform.setNow(testStart + 30 * day);
    const trusted = await open(stored);
    await expect(trusted.updateTimestamp(old.timestamp)).rejects.toThrow(failsWith('ERR_INLAY_ROLLBACK'));
    await repository.signAll();
    await updateAll(trusted);
    trusted.assertCurrent();
  });

  it('rollback: refuses a snapshot that no longer lists a role', async () => {
    const trusted = await current();
    const { snapshot, timestamp } = await pin();
    await trusted.updateTimestamp(timestamp);
    await expect(trusted.updateSnapshot(snapshot)).rejects.toThrow(failsWith('ERR_INLAY_ROLLBACK'));
  });

  it('mix-and-match: takes no file but the one that is pinned', async () => {
    const first = { ...repository.files };
    await repository.release('digits', '1.0.0', Uint8Array.of(1));
    const trusted = await open();
    const { files } = repository;
    await trusted.updateTimestamp(files.timestamp);
    await expect(trusted.updateSnapshot(first.snapshot)).rejects.toThrow(failsWith('ERR_INLAY_HASH'));
    await trusted.updateSnapshot(files.snapshot);
    await expect(trusted.updateTargets(first.targets)).rejects.toThrow(failsWith('ERR_INLAY_LENGTH'));
    await trusted.updateTargets(files.targets);
    await expect(trusted.updateRollout(first.rollout)).rejects.toThrow(failsWith('ERR_INLAY_HASH'));
  });

  it('mix-and-match: uses no stored targets that the new snapshot does not pin', async () => {
    const trusted = await current();
    await repository.release('digits', '1.0.0', Uint8Array.of(1));
    await trusted.updateTimestamp(repository.files.timestamp);
    expect(() => {
      trusted.assertCurrent();
    }).toThrow(failsWith('ERR_INLAY_HASH'));
    await trusted.updateSnapshot(repository.files.snapshot);
    expect(trusted.targets).toBeUndefined();
    expect(trusted.rollout).toBeUndefined();
  });

  it('indefinite freeze: refuses expired metadata of every role', async () => {
    await repository.signAll({ timestamp: 3, snapshot: 2, targets: 1, rollout: 0.5 });
    const trusted = await current();
    const expired = failsWith('ERR_INLAY_EXPIRED');
    trusted.assertCurrent(testStart + 0.5 * day - 1);
    for (const [role, days] of Object.entries({
      rollout: 0.5,
      targets: 1,
      snapshot: 2,
      timestamp: 3,
      root: 365,
    })) {
      expect(() => {
        trusted.assertCurrent(testStart + days * day);
      }).toThrow(
        expect.objectContaining({ code: 'ERR_INLAY_EXPIRED', details: expect.objectContaining({ role }) }),
      );
    }
    const { files } = repository;
    platform.setNow(testStart + 3 * day);
    await expect((await open()).updateTimestamp(files.timestamp)).rejects.toThrow(expired);
    platform.setNow(testStart + 2 * day);
    const second = await open();
    await second.updateTimestamp(files.timestamp);
    await expect(second.updateSnapshot(files.snapshot)).rejects.toThrow(expired);
    platform.setNow(testStart + day);
    const third = await open();
    await third.updateTimestamp(files.timestamp);
    await third.updateSnapshot(files.snapshot);
    await expect(third.updateTargets(files.targets)).rejects.toThrow(expired);
    platform.setNow(testStart + 0.5 * day);
    const fourth = await open();
    await expect(updateAll(fourth)).rejects.toThrow(expired);
    expect(fourth.targets?.version).toBe(1);
    platform.setNow(testStart + 365 * day);
    await repository.signAll();
    await expect((await open()).updateTimestamp(repository.files.timestamp)).rejects.toThrow(expired);
  });

  it('indefinite freeze: the same timestamp again is refused once it expired', async () => {
    const stored = (await current()).export();
    platform.setNow(testStart + 3 * day);
    const trusted = await open(stored);
    await expect(trusted.updateTimestamp(repository.files.timestamp)).rejects.toThrow(
      failsWith('ERR_INLAY_EXPIRED'),
    );
  });

  it('indefinite freeze: measures one cycle against the time at which it began', async () => {
    const trusted = await open();
    platform.setNow(testStart + 400 * day);
    await updateAll(trusted);
    trusted.assertCurrent();
    expect(() => {
      trusted.assertCurrent(platform.now());
    }).toThrow(failsWith('ERR_INLAY_EXPIRED'));
  });

  it('indefinite freeze: an expired root can still be replaced', async () => {
    platform.setNow(testStart + 400 * day);
    await repository.rotateRoot({});
    await repository.signAll();
    const trusted = await open();
    await trusted.updateRoot(rootBytes(2));
    await updateAll(trusted);
    trusted.assertCurrent();
  });

  it('fast-forward: rotating the online key lets versions start again', async () => {
    repository.versions = { timestamp: 1_000_000, snapshot: 1_000_000, rollout: 1_000_000 };
    await repository.signAll();
    const trusted = await current();
    repository.versions = { timestamp: 2, snapshot: 2, rollout: 2 };
    await repository.signAll();
    await expect(trusted.updateTimestamp(repository.files.timestamp)).rejects.toThrow(
      failsWith('ERR_INLAY_ROLLBACK'),
    );

    await repository.rotateRoot({ online: await newSigner(platform) });
    repository.versions = { timestamp: 2, snapshot: 2, rollout: 2 };
    await repository.signAll();
    await trusted.updateRoot(rootBytes(2));
    await updateAll(trusted);
    trusted.assertCurrent();
    expect(trusted.timestamp?.version).toBe(2);
  });
});

/** Version of the next snapshot. */
const versionsNow = (): number => repository.versions.snapshot;

/** Signs a snapshot and a timestamp that pin the present targets and, if given, another rollout. */
async function pin(
  rollout?: Uint8Array,
  change: (snapshot: MetaFile) => MetaFile = (file) => file,
): Promise<{ snapshot: Uint8Array; timestamp: Uint8Array }> {
  const { files, online, versions, targetsBody } = repository;
  const expires = expiresIn(testStart, 3);
  const meta = {
    'targets.json': describeFile(platform, targetsBody.version, files.targets),
    ...(rollout && { 'rollout.json': describeFile(platform, versions.rollout, rollout) }),
  };
  const snapshot = await signMetadata(createSnapshot({ version: versions.snapshot, expires, meta }), [
    online,
  ]);
  const pinned = change(describeFile(platform, versions.snapshot, snapshot));
  const body = createTimestamp({ version: versions.timestamp, expires, snapshot: pinned });
  return { snapshot, timestamp: await signMetadata(body, [online]) };
}
