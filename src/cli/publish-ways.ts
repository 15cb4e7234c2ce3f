/** What devices may download instead of whole files, with the releases that each way starts from. */

import { currentTargets, type CurrentOptions } from '../publish/current.ts';
import { listReleases } from '../publish/release.ts';
import { fetchManifest, type FileSource } from '../publish/released-files.ts';
import type { Targets } from '../trust/metadata.ts';
import { formatBytes } from './terminal.ts';

/** One way to a file of a release. */
export interface ReleaseWay {
  readonly variant: string;
  /** `hop`: a patch of an earlier release, which leads to where others go on. */
  readonly kind: 'compressed' | 'patch' | 'hop';
  readonly codec: string;
  readonly sizeBytes: number;
  /** Versions that have the file that a patch starts from. */
  readonly from?: readonly string[];
  /** Versions that have the file that comes out of a hop. */
  readonly to?: readonly string[];
}

/**
 * Reads the ways that a release offers.
 * @throws {@link TrustError} and {@link ServerError} for metadata or a manifest that cannot be read.
 */
export async function readWays(
  source: CurrentOptions & FileSource,
  release: { readonly model: string; readonly path: string },
): Promise<readonly ReleaseWay[]> {
  const targets = await currentTargets(source);
  const manifest = await fetchManifest(source, targets, release);
  const versionsOf = findVersions(targets, release.model);
  return (manifest?.files ?? []).flatMap(({ variant, ways = [] }) =>
    ways.flatMap((way): readonly ReleaseWay[] =>
      'codec' in way
        ? [
            {
              variant,
              kind: way.kind,
              codec: way.codec,
              sizeBytes: way.length,
              ...('from' in way && { from: versionsOf(way.from) }),
              ...('to' in way && { to: versionsOf(way.to.sha256) }),
            },
          ]
        : [],
    ),
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

/** Says what a way is, in a line. */
export function describeWay({ variant, kind, codec, sizeBytes, from, to }: ReleaseWay): string {
  const size = `${formatBytes(sizeBytes)} (${sizeBytes} bytes)`;
  const places = [...(from ? [`from ${from.join(' or ')}`] : []), ...(to ? [`to ${to.join(' or ')}`] : [])];
  const what = kind === 'hop' ? 'earlier patch' : kind;
  return [`  ${codec.padEnd(6)}  ${size}, ${what} ${variant}`, ...places].join(' ');
}
