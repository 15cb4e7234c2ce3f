/** Whether devices that run a model can go on with its next release. */

import { ModelError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import type { Signature } from '../core/signature.ts';
import { assertReplaces } from '../engine/replaces.ts';
import { checkModel } from '../publish/check-model.ts';
import { currentTargets } from '../publish/current.ts';
import type { PublisherKeys, ReleaseServer } from '../publish/publisher.ts';
import { fetchManifest, fetchTarget } from '../publish/released-files.ts';
import { findRelease, isWithdrawn, listReleases, type ListedRelease } from '../publish/release.ts';
import type { Profile } from '../telemetry/profile.ts';
import { readProfile } from '../telemetry/profile-reader.ts';
import type { Targets } from '../trust/metadata.ts';
import { openCheckBackend } from './publish-backend.ts';

/** What {@link compareWithPresent} looks at. */
export interface ComparisonOptions {
  readonly server: ReleaseServer;
  readonly keys: PublisherKeys;
  readonly platform: Platform;
  readonly model: string;
  readonly version: string;
  readonly signature: Signature;
  /** Whether it may differ. */
  readonly isNew: boolean;
  readonly timeoutMs: number;
}

/** How a release compares with the newest one that is not withdrawn. */
export interface Comparison {
  /** Whether devices that run that one would refuse it. */
  readonly isOther: boolean;
  readonly notices: readonly string[];
}

/**
 * Compares a release with the newest one of its model that is not withdrawn.
 * @throws {@link ModelError} `ERR_INLAY_MODEL_UNSUPPORTED` if devices would refuse it, unless `isNew`.
 */
export async function compareWithPresent(options: ComparisonOptions): Promise<Comparison> {
  const { model, version, signature, isNew } = options;
  const targets = await currentTargets(options);
  const present = newestOf(targets, model);
  if (present === undefined || findRelease(targets, model, version)) return { isOther: false, notices: [] };
  const before = await signatureOf(options, present);
  if (before === undefined) {
    const notice = `Its inputs and outputs were not compared with those of ${present.version}, which cannot be opened here.`;
    return { isOther: false, notices: [notice] };
  }
  try {
    assertReplaces(model, before, version, signature);
    return { isOther: false, notices: [] };
  } catch (error) {
    if (!(error instanceof ModelError)) throw error;
    if (!isNew) throw refusal(options, present, error);
    const notice = `Devices that run ${present.version} will refuse it, since its inputs or outputs differ; another name or channel is better.`;
    return { isOther: true, notices: [notice] };
  }
}

/**
 * Reads the outputs of the profile of the newest release that is not withdrawn, for their bins.
 * @returns `undefined` where there is no such release, or it has no profile.
 */
export async function readPresentOutputs(
  parts: Pick<ComparisonOptions, 'server' | 'keys' | 'platform' | 'model'>,
): Promise<{ readonly version: string; readonly outputs: Profile['outputs'] } | undefined> {
  const targets = await currentTargets(parts);
  const present = newestOf(targets, parts.model);
  const manifest = present && (await fetchManifest(parts, targets, present));
  if (manifest?.profile === undefined) return undefined;
  const { outputs } = readProfile(await fetchTarget(parts, manifest.profile));
  return { version: manifest.version, outputs };
}

function newestOf(targets: Targets, model: string): ListedRelease | undefined {
  return listReleases(targets)
    .filter((release) => release.model === model && !isWithdrawn(targets, model, release.seq))
    .sort((a, b) => b.seq - a.seq)[0];
}

/** Reads a signature off the file; `undefined` if it cannot be opened, as one that was published without a trial. */
async function signatureOf(
  { server, platform, timeoutMs }: ComparisonOptions,
  release: ListedRelease,
): Promise<Signature | undefined> {
  const bytes = await fetchTarget({ server, platform }, release);
  const backend = openCheckBackend(timeoutMs);
  try {
    return (await checkModel({ backend, files: [{ variant: release.version, bytes }] })).signature;
  } catch (error) {
    if (!(error instanceof ModelError)) throw error;
    return undefined;
  } finally {
    await backend.close();
  }
}

function refusal(
  { model, version }: ComparisonOptions,
  present: ListedRelease,
  cause: ModelError,
): ModelError {
  return new ModelError(
    'ERR_INLAY_MODEL_UNSUPPORTED',
    `Devices that run ${present.version} would refuse this release: ${cause.message.replace(/\.$/, '')}, with --new-signature.`,
    { cause, details: { model, version, present: present.version, reason: 'signature' } },
  );
}
