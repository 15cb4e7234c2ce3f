/** A server beside the one that signs: it reads what is in force, and changes none of it. */

import type { Kysely } from 'kysely';
import { ServerError } from '../core/errors.ts';
import type { NamedKey } from '../trust/keys.ts';
import type { Catalog } from './catalog.ts';
import { createStateReader } from './catalog-state.ts';
import { guarded } from './db/failure.ts';
import type { Repository } from './db/repository.ts';
import type { Schema } from './db/schema.ts';

/** Name of the setting that holds the public key of the server that signs. */
const setting = 'online-key';

/** Creates a catalog that refuses every change. What nears its expiry is for the primary to sign again. */
export function createReplicaCatalog(repository: Repository, onlineKey: NamedKey): Catalog {
  const state = createStateReader(repository);
  const refuse = (): Promise<never> =>
    Promise.reject(
      new ServerError('ERR_INLAY_REFUSED', 'This replica holds no key that signs; ask the primary.'),
    );
  return {
    onlineKey,
    state,
    renew: state,
    installRoot: refuse,
    installTargets: refuse,
    setRollout: refuse,
    changeRollout: refuse,
  };
}

/** Leaves the public key where replicas find it. */
export async function leaveOnlineKey(db: Kysely<Schema>, key: NamedKey): Promise<void> {
  const body = JSON.stringify(key);
  await guarded(() =>
    db
      .insertInto('setting')
      .values({ name: setting, body })
      .onConflict((conflict) => conflict.column('name').doUpdateSet({ body }))
      .execute(),
  );
}

/** Reads what {@link leaveOnlineKey} left. @throws {@link ServerError} `ERR_INLAY_NOT_FOUND` before the first primary. */
export async function readOnlineKey(db: Kysely<Schema>): Promise<NamedKey> {
  const row = await guarded(() =>
    db.selectFrom('setting').select('body').where('name', '=', setting).executeTakeFirst(),
  );
  if (row) return JSON.parse(row.body) as NamedKey;
  throw new ServerError(
    'ERR_INLAY_NOT_FOUND',
    'No primary has used this database; start one first, without --role replica.',
  );
}
