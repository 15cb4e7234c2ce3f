/** Files named by their SHA-256 (64 lower-case hex digits): the bytes of models. */
export interface BlobStorage {
  /** Finds the size in bytes, or `undefined` if there is no such blob. */
  size(sha256: string): Promise<number | undefined>;
  /**
   * Keeps a blob. Nothing is left behind on failure.
   * @param maxBytes largest content that is accepted.
   * @returns its size in bytes.
   * @throws {@link StoreError} `ERR_INLAY_STORE_MISMATCH` if the content has another hash, `ERR_INLAY_STORE_FULL`,
   * `ERR_INLAY_STORE_IO`; {@link TrustError} `ERR_INLAY_LENGTH` if it is larger than `maxBytes`.
   */
  write(sha256: string, content: AsyncIterable<Uint8Array>, maxBytes: number): Promise<number>;
  /**
   * Reads a part of a blob.
   * @param start first byte.
   * @param end last byte, inclusive.
   */
  read(sha256: string, start: number, end: number): ReadableStream<Uint8Array<ArrayBuffer>>;
  /** Counts blobs and their bytes. */
  usage(): Promise<{ readonly count: number; readonly sizeBytes: number }>;
}
