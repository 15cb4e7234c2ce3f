/** Reference profiles of releases, out of their signed files. */

import type { Kysely } from 'kysely';
import { fromUtf8, toUtf8 } from '../../core/bytes.ts';
import { readProfile } from '../../telemetry/profile-reader.ts';
import type { Profile } from '../../telemetry/profile.ts';
import type { Catalog } from '../catalog.ts';
import { listCompanions } from '../companions.ts';
import type { Schema } from '../db/schema.ts';
import type { BlobStorage } from '../storage/blobs.ts';

/** A profile, and what it belongs to. */
export interface ReleaseProfile {
  readonly model: string;
  readonly version: string;
  /** First 8 bytes of the SHA-256 of the file, hex. */
  readonly hash: string;
  readonly profile: Profile;
}

/** What {@link createProfiles} needs. */
export interface ProfileParts {
  readonly db: Kysely<Schema>;
  readonly catalog: Pick<Catalog, 'state'>;
  readonly blobs: Pick<BlobStorage, 'read'>;
  /** Told of a profile that cannot be read; the others are. */
  readonly onError?: (error: unknown) => void;
}

/**
 * Creates the reader of profiles. They are kept in the database, so that they outlive releases that were removed.
 * @returns all profiles of all releases, in no particular order.
 */
export function createProfiles(parts: ProfileParts): () => Promise<readonly ReleaseProfile[]> {
  const { db, catalog, blobs, onError } = parts;
  const known = new Map<string, ReleaseProfile>();
  const broken = new Set<string>();

  const learn = async (): Promise<void> => {
    const { published } = await catalog.state();
    if (!published) return;
    const versions = new Map(
      [...published.releases.values()].map(({ model, seq, version }) => [`${model}/${seq}`, version]),
    );
    for (const { model, seq, role, sha256, length } of listCompanions(published.targets)) {
      const version = versions.get(`${model}/${seq}`);
      if (role !== 'profile' || version === undefined) continue;
      const hash = sha256.slice(0, 16);
      const isKnown = known.get(keyOf(model, version))?.hash === hash;
      if (isKnown || broken.has(sha256)) continue;
      try {
        const bytes = new Uint8Array(await new Response(blobs.read(sha256, 0, length - 1)).arrayBuffer());
        const profile = readProfile(bytes);
        const row = { model, version, hash, body: fromUtf8(bytes) };
        await db
          .insertInto('profile')
          .values(row)
          .onConflict((conflict) =>
            conflict.columns(['model', 'version']).doUpdateSet({ hash: row.hash, body: row.body }),
          )
          .execute();
        known.set(keyOf(model, version), { model, version, hash, profile });
      } catch (error) {
        broken.add(sha256);
        onError?.(error);
      }
    }
  };

  const recall = async (): Promise<void> => {
    const hashes = await db.selectFrom('profile').select(['model', 'version', 'hash']).execute();
    const unknown = hashes.filter(({ model, version, hash }) => {
      const present = known.get(keyOf(model, version));
      return present?.hash !== hash && !broken.has(hash);
    });
    for (const { model, version, hash } of unknown) {
      const row = await db
        .selectFrom('profile')
        .select('body')
        .where('model', '=', model)
        .where('version', '=', version)
        .executeTakeFirst();
      try {
        const profile = readProfile(toUtf8(row?.body ?? ''));
        known.set(keyOf(model, version), { model, version, hash, profile });
      } catch (error) {
        broken.add(hash);
        onError?.(error);
      }
    }
  };

  return async () => {
    await recall();
    await learn();
    return [...known.values()];
  };
}

function keyOf(model: string, version: string): string {
  return `${model}\n${version}`;
}
