import type { Blob } from '../core/store.ts';

/** Makes a file out of another one and a patch. What comes out is checked against the signed hash, whatever it is. */
export interface Patcher {
  /** Name of the format, as manifests have it. */
  readonly codec: string;
  /**
   * Gives the new file piece by piece, in order.
   * @param base - the file that the patch starts from, verified; empty where it starts from none.
   * @param patch - the patch, verified.
   * @param sizeBytes - signed size of the new file: more must not come out.
   * @throws {@link UpdateError} `ERR_INLAY_PATCH` for a patch that is malformed or of another base.
   */
  apply(base: Blob, patch: Blob, sizeBytes: number): AsyncIterable<Uint8Array>;
}
