import { join } from 'node:path';
import { expect, it } from 'vitest';
import { createRepository } from '../../src/server/db/repository.ts';
import { createServices } from '../../src/server/services.ts';
import { openDiskStorage } from '../../src/server/storage/disk.ts';
import { openGuardWorld } from './guards-fixture.ts';
import { temporaryDirectory, testPlatform } from './server-fixture.ts';

it('an emergency takes back what is being rolled out, and not what everybody has', async () => {
  const { db, catalog, plan } = await openGuardWorld();
  const platform = testPlatform();
  const blobs = await openDiskStorage({ directory: join(await temporaryDirectory(), 'blobs'), platform });
  const errors: unknown[] = [];
  const { jobs, close } = createServices({
    ...{ db, catalog, blobs, platform, maxBlobBytes: 1e6 },
    repository: createRepository(db, () => platform.now()),
    onError: (error) => errors.push(error),
  });
  const raise = async (version: string): Promise<void> => {
    const body = JSON.stringify({
      v: 1,
      kind: 'rollback',
      model: 'digits',
      version,
      alert: { rule: 'fatal' },
    });
    const row = { contact: '@rollback', key: version, body, attempts: 0, next_at: 0, done_at: 0, error: '' };
    await db.insertInto('outbox').values(row).execute();
    const outbox = jobs.find(({ name }) => name === 'outbox');
    await outbox?.run(platform.now(), new AbortController().signal);
  };
  await raise('1.0.0');
  expect(await plan()).toMatchObject({ cand: { version: '1.0.0' }, state: 'complete' });
  await catalog.setRollout({ channel: 'stable', model: 'digits', version: '2.0.0', percent: 10 }, 'test');
  await raise('2.0.0');
  expect(await plan()).toMatchObject({ cand: { version: '2.0.0' }, state: 'rolledback' });
  expect(errors).toEqual([]);
  await close();
});
