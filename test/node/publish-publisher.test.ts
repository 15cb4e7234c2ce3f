import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { createAdminClient, type AdminClient } from '../../src/cli/admin-client.ts';
import { openKeyDirectory } from '../../src/cli/key-directory.ts';
import { publishRelease } from '../../src/publish/publisher.ts';
import { fromUtf8, toUtf8 } from '../../src/core/bytes.ts';
import {
  createRoot,
  createSnapshot,
  createTargets,
  createTimestamp,
  describeFile,
  expiresIn,
} from '../../src/publish/release.ts';
import { signMetadata } from '../../src/publish/sign.ts';
import { openSigner, parseKeyFile } from '../../src/publish/signer.ts';
import { parseEnvelope } from '../../src/trust/parse.ts';
import { startTestServer, temporaryDirectory, tinyModel, verify } from './server-fixture.ts';

it('rollback: signs nothing upon old targets that a stolen online key calls the newest', async () => {
  const server = await startTestServer();
  const { platform, token, onlineKey } = server;
  const keys = openKeyDirectory(join(await temporaryDirectory(), 'keys'), platform);
  const { root, targets } = await keys.create();
  const expires = expiresIn(platform.now(), 100);
  const body = createRoot({ rootKeys: [root], targetsKeys: [targets], onlineKey, expires });
  await keys.write('root.json', await signMetadata(body, [root]));
  const client = createAdminClient({ server: server.url, token, platform });
  await client.putRoot(await keys.root());
  await client.putTargets(await signMetadata(createTargets({ onlineKey, expires }), [targets]));
  const publish = (through: AdminClient, version: string): Promise<unknown> =>
    publishRelease({ server: through, keys, platform }, tinyModel(version), {
      model: 'digits',
      version,
      file: 'digits.onnx',
    });
  await publish(client, '1.0.0');
  const old = await client.text('/v1/metadata/2.targets.json');
  await publish(client, '1.1.0');

  const path = join(server.dataDir, 'online-key.json');
  const { subtle } = globalThis.crypto;
  const stolen = await openSigner({ subtle, platform }, parseKeyFile(await readFile(path, 'utf8'), path));
  const tip = await client.tip(1);
  const present = parseEnvelope(toUtf8(tip.snapshot), 'snapshot').signed;
  const snapshot = await signMetadata(
    createSnapshot({
      version: present.version + 1,
      expires,
      meta: { ...present.meta, 'targets.json': describeFile(platform, 4, old) },
    }),
    [stolen],
  );
  const timestamp = await signMetadata(
    createTimestamp({
      version: parseEnvelope(toUtf8(tip.timestamp), 'timestamp').signed.version + 1,
      expires,
      snapshot: describeFile(platform, present.version + 1, snapshot),
    }),
    [stolen],
  );
  const lying: AdminClient = {
    ...client,
    tip: async () => ({ ...tip, snapshot: fromUtf8(snapshot), timestamp: fromUtf8(timestamp) }),
    text: async () => old,
  };
  await expect(publish(lying, '1.2.0')).rejects.toMatchObject({ code: 'ERR_INLAY_ROLLBACK' });
  expect((await verify(server)).targets.version).toBe(3);
});
