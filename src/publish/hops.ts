/** Patches of earlier releases that lead, over files of these, to a new one: they cost the publisher nothing any more. */

import { isInlayError } from '../core/errors.ts';
import type { Targets } from '../trust/metadata.ts';
import { cheapestPath, requestBytes, type Edge } from '../update/cheapest-path.ts';
import { maxItems, type FileContent, type ReleaseFile, type Way } from '../update/manifest.ts';
import { worthPercent, type PreparedWay } from './patches.ts';
import { isWithdrawn, listReleases } from './release.ts';
import { fetchManifest, type FileSource } from './released-files.ts';

/** A patch of an earlier release. */
export type Hop = Extract<Way, { readonly kind: 'hop' }>;

/** Most hops that a file names: some 400 bytes of its manifest each. */
export const mostHops = 16;
/** Newest releases whose patches are looked at: each takes a request. */
const mostReleases = 16;

interface PatchEdge extends Edge {
  readonly hop?: Hop;
}

/**
 * Reads the files of the newest releases that are not withdrawn, the newest first. A release whose manifest the server
 * has lost is left out: hops save bytes, and are no reason not to publish.
 * @throws {@link TrustError} and {@link ServerError} for a manifest that cannot be read.
 */
export async function readEarlier(
  source: FileSource,
  targets: Targets,
  model: string,
): Promise<readonly ReleaseFile[]> {
  const releases = listReleases(targets)
    .filter((one) => one.model === model && !isWithdrawn(targets, model, one.seq))
    .sort((a, b) => b.seq - a.seq)
    .slice(0, mostReleases);
  const manifests = [];
  for (const release of releases) {
    try {
      manifests.push(await fetchManifest(source, targets, release));
    } catch (error) {
      if (!isInlayError(error) || error.code !== 'ERR_INLAY_NOT_FOUND') throw error;
    }
  }
  return manifests.flatMap((manifest) => manifest?.files ?? []);
}

/**
 * Chooses the hops that make it cheaper to come from an earlier release, as far as the server still has them. A path has
 * to be cheaper than every single way, and at most as large as a patch may be.
 * @param ways - those to the new file.
 * @param earlier - files of the same variant, the newest first: their devices are the most.
 */
export async function chooseHops(
  file: FileContent,
  ways: readonly PreparedWay[],
  earlier: readonly ReleaseFile[],
  hasBlob: (sha256: string) => Promise<boolean>,
): Promise<readonly Hop[]> {
  let hops = hopsBetween(file, earlier);
  for (;;) {
    const chosen = choose(file, ways, earlier, hops);
    const gone = new Set<string>();
    for (const { sha256 } of chosen) if (!(await hasBlob(sha256))) gone.add(sha256);
    if (gone.size === 0) return chosen;
    hops = hops.filter(({ sha256 }) => !gone.has(sha256));
  }
}

/** All patches from one earlier file to another, each once. */
function hopsBetween(file: FileContent, earlier: readonly ReleaseFile[]): readonly Hop[] {
  const all = earlier.flatMap(({ sha256, length, ways = [] }) =>
    ways.flatMap((way): Hop[] => {
      if (way.kind !== 'patch' || sha256 === file.sha256) return [];
      const { path, codec, from } = way;
      return [
        { kind: 'hop', path, sha256: way.sha256, length: way.length, codec, from, to: { sha256, length } },
      ];
    }),
  );
  return [...new Map(all.map((hop) => [hop.path, hop])).values()];
}

function choose(
  file: FileContent,
  ways: readonly PreparedWay[],
  earlier: readonly ReleaseFile[],
  hops: readonly Hop[],
): readonly Hop[] {
  const edges: readonly PatchEdge[] = [
    { to: file.sha256, cost: file.length + requestBytes },
    ...ways.map((way) => ({
      from: way.kind === 'patch' ? way.from : undefined,
      to: file.sha256,
      cost: way.bytes.length + requestBytes,
    })),
    ...hops.map((hop) => ({ from: hop.from, to: hop.to.sha256, cost: hop.length + requestBytes, hop })),
  ];
  const most = Math.min(mostHops, maxItems - ways.length);
  const chosen = new Set<Hop>();
  for (const { sha256 } of earlier) {
    const path = cheapestPath(edges, [sha256], file.sha256);
    if (path === undefined || path.cost * 100 > file.length * worthPercent.patch) continue;
    const added = path.steps.flatMap(({ hop }) => (hop === undefined || chosen.has(hop) ? [] : hop));
    if (chosen.size + added.length <= most) for (const hop of added) chosen.add(hop);
  }
  return [...chosen];
}
