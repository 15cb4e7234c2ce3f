import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { createAdminClient } from '../../src/cli/admin-client.ts';
import { openKeyDirectory } from '../../src/cli/key-directory.ts';
import { readCurrent } from '../../src/publish/current.ts';
import {
  installDrafts,
  proposeRoot,
  readAndKeep,
  type RotationParts,
} from '../../src/publish/root-rotate.ts';
import { startWithKeys } from './cli-keys-fixture.ts';
import { verify, type TestServer } from './server-fixture.ts';

async function start(): Promise<{
  server: TestServer;
  parts: RotationParts;
  verified: () => Promise<string>;
}> {
  const { server, alice } = await startWithKeys();
  const { platform, url, token } = server;
  const client = createAdminClient({ server: url, token, platform });
  const parts = { server: client, keys: openKeyDirectory(alice.keys, platform), platform };
  return { server, parts, verified: () => readFile(join(alice.keys, 'verified.json'), 'utf8') };
}

async function renew(parts: RotationParts): Promise<void> {
  await proposeRoot(parts, { renewTargets: true }, await readAndKeep(parts));
  await installDrafts(parts);
}

describe('a year that nobody looked', () => {
  it('ends with one renewal of root and targets, which devices of the first root accept', async () => {
    const { server, parts } = await start();
    server.platform.advanceHours(24 * 400);
    await expect(verify(server)).rejects.toMatchObject({ code: 'ERR_INLAY_EXPIRED' });
    await renew(parts);
    const { targets } = await verify(server);
    expect(targets.version).toBe(2);
  });

  it('ends the same way when only the targets have expired', async () => {
    const { server, parts } = await start();
    server.platform.advanceHours(24 * 200);
    await renew(parts);
    await verify(server);
  });

  it('does not make the publisher believe old online metadata (indefinite freeze)', async () => {
    const { server, parts } = await start();
    const before = await parts.server.tip(1);
    server.platform.advanceHours(24 * 400);
    const frozen = { ...parts.server, tip: () => Promise.resolve(before) };
    await expect(readCurrent({ ...parts, server: frozen })).rejects.toMatchObject({
      code: 'ERR_INLAY_EXPIRED',
    });
    server.platform.advanceHours(-24 * 390);
    await expect(readCurrent({ ...parts, server: frozen })).rejects.toMatchObject({
      code: 'ERR_INLAY_EXPIRED',
    });
  });

  it('does not take the publisher back behind what it saw, with a new online key either (rollback)', async () => {
    const { parts } = await start();
    const [old, oldTargets] = [
      await parts.server.tip(1),
      await parts.server.text('/v1/metadata/1.targets.json'),
    ];
    await renew(parts);
    await readCurrent(parts);
    const lying = {
      ...parts,
      withoutOnlineKey: true,
      server: {
        ...parts.server,
        tip: () =>
          Promise.resolve({ ...old, timestamp: old.timestamp.replace(/"sig":"..../, '"sig":"0000') }),
        text: () => Promise.resolve(oldTargets),
      },
    };
    await expect(readCurrent(lying)).rejects.toMatchObject({ code: 'ERR_INLAY_ROLLBACK' });
  });
});
