/** What offline-signed metadata has to be, apart from being signed, for the server to take it in. */

import { ServerError, TrustError } from '../core/errors.ts';
import { isName, listReleases } from '../publish/release.ts';
import type { Targets } from '../trust/metadata.ts';
import { listCompanions } from './companions.ts';
import type { BlobStorage } from './storage/blobs.ts';

/**
 * Checks that a version follows the one in force.
 * @throws {@link ServerError} `ERR_INLAY_CONFLICT`
 */
export function assertVersion(role: string, version: number, present = 0): void {
  if (version === present + 1) return;
  throw new ServerError(
    'ERR_INLAY_CONFLICT',
    `Version ${version} of ${role} does not follow version ${present}; read the present metadata and sign again.`,
    { details: { role, version, present } },
  );
}

/**
 * Checks that metadata has not expired.
 * @throws {@link TrustError} `ERR_INLAY_EXPIRED`
 */
export function assertValid(role: string, expires: string, now: number): void {
  if (Date.parse(expires) > now) return;
  throw new TrustError(
    'ERR_INLAY_EXPIRED',
    `The ${role} expired at ${expires}; sign it with a later expiry.`,
    {
      details: { role, expires },
    },
  );
}

/**
 * Checks that targets list releases and their companions only, each at the path of its release, with its file on the
 * server.
 * @throws {@link ServerError} `ERR_INLAY_REFUSED`
 */
export async function assertReleases(targets: Targets, blobs: Pick<BlobStorage, 'size'>): Promise<void> {
  const releases = listReleases(targets);
  const companions = listCompanions(targets);
  const files = [...releases, ...companions];
  const wellFormed = new Set(files.map(({ path }) => path));
  for (const path of Object.keys(targets.targets))
    if (!wellFormed.has(path)) refuse(path, 'is no release of a model, and no companion of one');
  for (const { path, model, seq, sha256 } of files) {
    if (!isOwnPath(path, model, seq)) refuse(path, 'is not at models/<model>/<seq>/<file>');
    if (!/^[0-9a-f]{64}$/.test(sha256)) refuse(path, 'has a SHA-256 that is not lower-case hex');
  }
  const taken = new Set<string>();
  for (const { path, model, version, seq } of releases) {
    for (const key of [`${model} version ${version}`, seqOf(model, seq)]) {
      if (taken.has(key)) refuse(path, 'names a version or sequence number that another target has');
      taken.add(key);
    }
  }
  for (const { path, model, seq } of companions) {
    if (!taken.has(seqOf(model, seq))) refuse(path, 'belongs to a release that is not there');
  }
  for (const { path, sha256, length } of files) {
    const sizeBytes = await blobs.size(sha256);
    if (sizeBytes === undefined)
      refuse(path, `names the blob ${sha256}, which is not on the server; upload it first`);
    if (sizeBytes !== length) refuse(path, `says ${length} bytes where the blob has ${sizeBytes}`);
  }
}

function isOwnPath(path: string, model: string, seq: number): boolean {
  const [folder, name, counter, file = '', ...rest] = path.split('/');
  const isHere = folder === 'models' && name === model && counter === String(seq) && rest.length === 0;
  return isHere && isName(file) && isName(model) && Number.isSafeInteger(seq) && seq >= 1;
}

function seqOf(model: string, seq: number): string {
  return `${model} seq ${seq}`;
}

/** Paths come from the sender, so they are quoted and cut. */
function refuse(path: string, problem: string): never {
  throw new ServerError('ERR_INLAY_REFUSED', `The target ${JSON.stringify(path.slice(0, 200))} ${problem}.`);
}
