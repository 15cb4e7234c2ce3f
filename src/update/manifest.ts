/**
 * The manifest of a release: which files it has, and the ways in which each can be had. It is a target of its own
 * (`models/<model>/<seq>/release.json`), so path, length and hash of everything here are signed offline.
 */

/** A file on the server that is named by content: a target of the release. */
export interface FileRef {
  /** Target path. */
  readonly path: string;
  /** Lower-case hex. */
  readonly sha256: string;
  /** Bytes. */
  readonly length: number;
}

/**
 * One way to have a file. `full` is the file itself. `compressed` is the file under a standard coding. `patch` makes it
 * out of another file that the device may have.
 */
export type Way = FileRef &
  (
    | { readonly kind: 'full' }
    | { readonly kind: 'compressed'; readonly codec: 'gzip' }
    | {
        readonly kind: 'patch';
        /** Name of the {@link Patcher} that applies it. */
        readonly codec: string;
        /** SHA-256 of the file that it starts from. */
        readonly from: string;
      }
  );

/** One variant of the model: the same answers from other weights. */
export interface ReleaseFile extends FileRef {
  /** `fp32`, `int8` … */
  readonly variant: string;
  /** What a device must have for it: names of execution providers, one of which is enough, and their features. */
  readonly requires?: { readonly providers?: readonly string[]; readonly features?: readonly string[] };
  /** SHA-256 of each piece of `size` bytes, the last one shorter, as one text of hex digits. */
  readonly chunks: { readonly size: number; readonly sha256: string };
  /** Other ways than the whole file, which is always there. */
  readonly ways?: readonly Way[];
}

/** How far an answer may lie from the golden one: |a − b| ≤ absolute + relative · |b|, in millionths. */
export interface GoldenTolerance {
  readonly absoluteE6: number;
  readonly relativeE6: number;
}

/** A release, as the publisher signed it. */
export interface ReleaseManifest {
  readonly v: 1;
  readonly model: string;
  readonly version: string;
  readonly seq: number;
  /** The reference first: the file that plans name. Devices take the first one that they can run. */
  readonly files: readonly [ReleaseFile, ...ReleaseFile[]];
  /** Inputs and the outputs that they must give (`update/golden.ts`). */
  readonly golden?: FileRef & { readonly tolerance: GoldenTolerance };
  /** What the model sees and gives in the publisher's data, for drift. */
  readonly profile?: FileRef;
}
