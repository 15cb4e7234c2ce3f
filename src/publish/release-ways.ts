/** What devices may download instead of whole files, with the releases that each way starts from. */

import type { Targets } from '../trust/metadata.ts';
import type { ReleaseManifest } from '../update/manifest.ts';
import { listReleases } from './release.ts';

/** One way to a file of a release. */
export interface ReleaseWay {
  readonly variant: string;
  /** `hop`: a patch of an earlier release, which leads to where others go on. */
  readonly kind: 'compressed' | 'patch' | 'hop';
  readonly codec: string;
  /** Bytes. */
  readonly sizeBytes: number;
  /** Versions that have the file that a patch starts from. */
  readonly from?: readonly string[];
  /** Versions that have the file that comes out of a hop. */
  readonly to?: readonly string[];
}

/** Lists the ways that a release offers, those to whole files left out. @param targets - those that list it. */
export function listWays(
  { model, files }: Pick<ReleaseManifest, 'model' | 'files'>,
  targets: Targets,
): readonly ReleaseWay[] {
  const versionsOf = findVersions(targets, model);
  return files.flatMap(({ variant, ways = [] }) =>
    ways.flatMap((way): readonly ReleaseWay[] => {
      if (way.kind === 'full') return [];
      const { kind, codec, length: sizeBytes } = way;
      return [
        {
          ...{ variant, kind, codec, sizeBytes },
          ...('from' in way && { from: versionsOf(way.from) }),
          ...('to' in way && { to: versionsOf(way.to.sha256) }),
        },
      ];
    }),
  );
}

/** Looks up which versions of a model have a file, by its SHA-256; the file itself for one that no release has any more. */
function findVersions(targets: Targets, model: string): (sha256: string) => readonly string[] {
  const releases = new Map(
    listReleases(targets)
      .filter((one) => one.model === model)
      .map(({ seq, version }) => [seq, version]),
  );
  return (sha256) => {
    const found = Object.values(targets.targets).flatMap(({ hashes, custom }) =>
      hashes['sha256'] === sha256 && custom?.['model'] === model
        ? (releases.get(Number(custom['seq'])) ?? [])
        : [],
    );
    return found.length === 0 ? [`sha256 ${sha256.slice(0, 12)}…`] : [...new Set(found)];
  };
}
