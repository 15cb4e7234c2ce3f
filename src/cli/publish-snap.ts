/** A release that is snapped to a grid, so that it is small for devices that have none yet. */

import type { Platform } from '../core/platform.ts';
import type { OptimizeRuntime } from '../optimize/runtime.ts';
import type { Verdict } from '../publish/compact/gate.ts';
import { snapRelease } from '../publish/compact/snap.ts';
import { encodePatch } from '../publish/delta/encode.ts';
import type { ReleaseVariant } from '../publish/publisher.ts';
import { sha256Hex } from '../trust/keys.ts';
import type { ModelTarget } from '../trust/metadata.ts';
import { formatShare } from './format.ts';
import { limitsOf, type CompactFlags } from './publish-compact.ts';
import { gzipBest } from './publish-files.ts';
import { describeFigures, figureColumns, openGate } from './publish-gate.ts';
import { formatBytes, table } from './terminal.ts';

/** What {@link snapReference} works with. */
export interface SnapRequest {
  readonly bits: number;
  readonly file: ReleaseVariant;
  readonly platform: Platform;
  readonly flags: CompactFlags;
  /** Absolute path of a data file; without one there has to be a metric. */
  readonly data: string | undefined;
  readonly cwd: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly open?: (target: 'node-cpu') => Promise<OptimizeRuntime>;
}

/** A release that was snapped, or was not because it is not good enough. */
export interface SnapReference {
  readonly file: ReleaseVariant;
  readonly record: ModelTarget['snap'];
  readonly notices: readonly string[];
  readonly facts: SnapFacts;
}

/** Bytes that a file takes by itself, as gzip and as a patch without a base. */
interface OwnBytes {
  readonly gzip: number;
  readonly idp: number;
}

/** What is told of it. */
export interface SnapFacts {
  readonly bits: number;
  readonly isSnapped: boolean;
  /** `null`: there was nothing to round. */
  readonly verdict: Verdict | null;
  readonly sizeBytes: number;
  /** Of what was trained. */
  readonly trained: OwnBytes;
  /** Of what was judged. */
  readonly snapped: OwnBytes;
  /** Of what is published. */
  readonly sha256: string;
}

/**
 * Snaps a release to a grid, if the gate lets it: its answers have to be those of the trained file as nearly as with
 * `--near`.
 * @throws as `openGate` and `snapRelease` do.
 */
export async function snapReference(request: SnapRequest): Promise<SnapReference> {
  const { bits, file, platform, flags, data, cwd, env, open } = request;
  const notices: string[] = [];
  const { gate, close } = await openGate({
    next: file.bytes,
    limits: limitsOf('near', flags),
    command: flags.compactMetric,
    data,
    cwd,
    env,
    open,
  });
  try {
    const { bytes, isSnapped, judged, verdict } = await snapRelease({ next: file.bytes, bits, gate });
    if (!isSnapped)
      notices.push(
        verdict === undefined
          ? 'Nothing was snapped: only float32 weights with two axes and 4,096 numbers are, unless they lie on the grid.'
          : `Snapped to ${bits} bits it is too far off, so that the weights are published as they are.`,
      );
    const sizesOf = async (content: Uint8Array<ArrayBuffer>): Promise<OwnBytes> => ({
      gzip: (await gzipBest(content)).length,
      idp: encodePatch(undefined, content, { platform }).length,
    });
    const trained = await sizesOf(file.bytes);
    return {
      file: { ...file, bytes },
      record: isSnapped ? { bits } : undefined,
      notices,
      facts: {
        bits,
        isSnapped,
        verdict: verdict ?? null,
        sizeBytes: bytes.length,
        trained,
        snapped: judged === file.bytes ? trained : await sizesOf(judged),
        sha256: sha256Hex(platform, bytes),
      },
    };
  } finally {
    await close();
  }
}

/** Says what it takes and how good it is, both ways, and what is published. */
export function describeSnap(facts: SnapFacts): string {
  const { bits, isSnapped, verdict, sizeBytes, trained, snapped, sha256 } = facts;
  const share = (bytes: number): string => `${formatBytes(bytes)}, ${formatShare(bytes / sizeBytes)}`;
  const row = (name: string, own: OwnBytes, quality: readonly string[]): readonly string[] => [
    name,
    share(own.gzip),
    share(own.idp),
    ...quality,
  ];
  const rows = [
    row('as trained', trained, ['', '']),
    ...(verdict ? [row(`${bits} bits`, snapped, describeFigures(verdict.figures))] : []),
  ];
  return [
    `Snapped to a grid (--snap ${bits}); the file stays ${formatBytes(sizeBytes)}`,
    table(['', 'gzip', 'idp', ...figureColumns], rows),
    isSnapped ? `Published exactly as judged: ${sha256}` : `Published as it is: ${sha256}`,
  ].join('\n');
}
