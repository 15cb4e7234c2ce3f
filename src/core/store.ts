/** Where models and small state are kept. Blobs are immutable and named by content; records change atomically. */

/** A blob that is complete and was verified when it was written. */
export interface Blob {
  readonly sha256: string;
  readonly sizeBytes: number;
  /** Absolute path, in stores that keep files. */
  readonly path?: string;
  /** Reads all of it. @returns a copy that the caller owns. */
  bytes(): Promise<Uint8Array<ArrayBuffer>>;
  /**
   * Reads a part of it, without holding all of it in memory.
   * @returns a copy that the caller owns, of exactly `length` bytes.
   * @throws `RangeError` for what is not within it; {@link StoreError} `ERR_INLAY_STORE_MISSING` if it is gone.
   */
  read(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>>;
}

/**
 * A blob that comes together piece by piece, across restarts. One opener at a time: who opens it again, in this process
 * or another, takes it over, and the earlier one fails with `ERR_INLAY_STORE_IO` at its next step.
 */
export interface PartialBlob {
  /** What was saved last; `undefined` at the beginning, and where the part was damaged or is of another size. */
  readonly note: Uint8Array<ArrayBuffer> | undefined;
  /** Writes at an offset, within the size. It survives a crash from the next {@link PartialBlob.save} on. */
  write(offset: number, bytes: Uint8Array): Promise<void>;
  /** Reads back what was written. */
  read(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>>;
  /** Makes everything that was written survive, and then, as one atomic step, keeps a note of at most 1 MiB about it. */
  save(note: Uint8Array): Promise<void>;
  /**
   * Puts the blob in place under its name, and forgets the part.
   * @param digest - lower-case hex SHA-256 of the whole content where the caller has computed it while writing;
   * otherwise the store reads it all again.
   * @throws {@link StoreError} `ERR_INLAY_STORE_MISMATCH` if that is not its name; the part is forgotten as well.
   */
  finish(digest?: string): Promise<Blob>;
  /** Forgets the part. */
  discard(): Promise<void>;
  /** Frees handles and keeps the part for later. Safe to call twice, and after the end. */
  close(): Promise<void>;
}

/** What a store knows of a blob without reading it. */
export interface BlobFacts {
  readonly sha256: string;
  readonly sizeBytes: number;
  /** When it was written or last looked up, give or take some hours, milliseconds since 1970. */
  readonly usedAt: number;
  /** Who named it in {@link Store.pin}. A blob without pins may be evicted. */
  readonly pins: readonly string[];
}

/** Where and how fast a store keeps things, for `info()`. */
export interface StoreInfo {
  readonly kind: string;
  readonly location?: string;
  /** Why the store does not outlive the process, when it does not. */
  readonly degraded?: string;
}

/** Immutable blobs by SHA-256 and small atomic records. Several processes may share one. */
export interface Store {
  info(): StoreInfo;
  /** Looks a blob up by lower-case hex SHA-256; `undefined` when absent. */
  blob(sha256: string): Promise<Blob | undefined>;
  /**
   * Keeps a blob. The content is hashed while it is written; a blob that already exists is not written again.
   * @throws {@link StoreError} `ERR_INLAY_STORE_MISMATCH` if content and `sha256` disagree (nothing is kept),
   * `ERR_INLAY_STORE_FULL`, `ERR_INLAY_STORE_READ_ONLY` or `ERR_INLAY_STORE_IO`.
   */
  putBlob(sha256: string, content: Uint8Array | AsyncIterable<Uint8Array>): Promise<Blob>;
  /**
   * Begins or goes on with a blob that comes in pieces. Parts that nobody opened for 30 days are forgotten, and so are
   * the oldest ones when room is needed.
   * @throws {@link StoreError} as {@link Store.putBlob}.
   */
  openPartial(sha256: string, sizeBytes: number): Promise<PartialBlob>;
  /** Forgets a blob; absent is fine. */
  deleteBlob(sha256: string): Promise<void>;
  /** Facts of all blobs, in order of name. */
  describeBlobs(): Promise<readonly BlobFacts[]>;
  /**
   * Names the blobs that `owner` cannot do without, in place of those that it named before; they need not be there yet.
   * They are never evicted to make room. An owner that has not named any for 90 days no longer counts.
   */
  pin(owner: string, blobs: readonly string[]): Promise<void>;
  /**
   * Makes sure, as far as the platform tells, that `sizeBytes` more fit, and evicts the blobs without pins that were
   * not used for the longest time if they do not. Nothing is set aside: it is a check before a download.
   * @throws {@link StoreError} `ERR_INLAY_STORE_FULL` if they will not fit; then nothing was evicted.
   */
  reserve(sizeBytes: number): Promise<void>;
  /**
   * Asks the platform to keep what is here also when it runs short of space, as browsers do on request.
   * @returns whether it will.
   */
  persist(): Promise<boolean>;
  /** Reads the newest intact generation of a record; `undefined` when there is none. */
  readRecord(name: string): Promise<Uint8Array<ArrayBuffer> | undefined>;
  /**
   * Replaces a record by what `change` makes of its present content, as one atomic step among all processes that
   * share the store. A crash leaves the old or the new content, never a mixture. Returning `undefined` leaves it.
   * @returns the content afterwards.
   */
  updateRecord(
    name: string,
    change: (present: Uint8Array<ArrayBuffer> | undefined) => Uint8Array | undefined,
  ): Promise<Uint8Array<ArrayBuffer> | undefined>;
  /** Frees handles. Safe to call twice. */
  close(): Promise<void>;
}
