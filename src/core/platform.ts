import type { Hasher } from './hash.ts';

/** A request, as {@link Platform.fetch} takes it. */
export interface FetchInit extends RequestInit {
  /**
   * Called when a piece of the body has come, with the bytes so far, by a `fetch` that resolves only when all of them
   * are there: without it, a request counts as silent until then, and nobody can stop one that sends too much.
   */
  readonly onActivity?: (loadedBytes: number) => void;
}

/** A public key that was read from signed metadata. */
export interface SignatureKey {
  readonly scheme: 'ed25519' | 'ecdsa-sha2-nistp256' | 'rsassa-pss-sha256';
  /** Ed25519: the 32 bytes of the point. Otherwise SubjectPublicKeyInfo in DER (RFC 5280 §4.1). */
  readonly public: Uint8Array;
}

/** Everything that Inlay needs from where it runs. Entry points pass one in; tests pass a fake clock. */
export interface Platform {
  /** Name of the runtime, for `info()`: `node`, `browser`, … */
  readonly runtime: string;
  /** What measured times hold for: processor and number of cores, as far as the runtime tells. */
  readonly hardware?: string;
  /** Cores that this process may use, as far as the runtime tells. */
  readonly cores?: number;
  /** Memory that the app takes now, bytes. Absent where the runtime does not tell. */
  readonly memoryBytes?: () => number;
  /** Processor time that this process has taken so far, milliseconds. */
  readonly processorMs?: () => number;
  /** Wall clock, milliseconds since 1970. */
  now(): number;
  /** Monotonic clock, milliseconds, for durations. */
  monotonicMs(): number;
  /**
   * Runs `task` once after `delayMs`.
   * @param keepAlive whether the process waits for it, as it must where a caller waits for what follows. Default: it
   * does not.
   * @returns cancels it.
   */
  setTimer(task: () => void, delayMs: number, keepAlive?: boolean): () => void;
  /**
   * Runs `task` soon: after all promise reactions that are due, before the next timer. What the host starts in one go
   * is there by then.
   */
  defer(task: () => void): void;
  /** Uniform number in [0, 1), for jitter. */
  random(): number;
  /** Cryptographically strong random bytes. */
  randomBytes(length: number): Uint8Array<ArrayBuffer>;
  createSha256(): Hasher;
  /** SHA-256 of bytes that are all there, off this thread or in native code. Absent where there is neither. */
  readonly digest?: (bytes: Uint8Array) => Promise<Uint8Array>;
  /** Verifies an Ed25519 signature (RFC 8032) by a raw 32-byte public key. */
  verifyEd25519(publicKey: Uint8Array, signature: Uint8Array, message: Uint8Array): Promise<boolean>;
  /**
   * Verifies a signature of the other schemes of TUF 1.0 §4.2.1: ECDSA over P-256 in DER (RFC 3279 §2.2.3), or RSA-PSS with
   * SHA-256 and 32 bytes of salt (RFC 8017 §8.1). Where it is absent, such signatures do not count.
   */
  readonly verifySignature?: (
    key: SignatureKey,
    signature: Uint8Array,
    message: Uint8Array,
  ) => Promise<boolean>;
  /** SHA-512, for files of TUF repositories that give no SHA-256. Where it is absent, such files are refused. */
  readonly createSha512?: () => Hasher;
  /**
   * This run of the app, and whether another run that shares the store still goes on: so that the work of a process that
   * was killed can be told from that of a neighbour. Absent where there is one process at most.
   */
  readonly instance?: {
    readonly id: string;
    isAlive(id: string): Promise<boolean>;
    /**
     * Whether a run that has ended was left by people, as when they close a page: that is no crash, whatever it was
     * doing. Absent where nothing can be noted at that moment.
     */
    wasLeft?(id: string): boolean;
  };
  /** What rollouts may ask for, as far as the runtime tells; see `Install` in `update/plan.ts`. */
  readonly traits?: {
    readonly os?: string;
    readonly arch?: string;
    readonly memoryMiB?: number;
    readonly locale?: string;
  };
  /** Whether bytes cost money, power comes from the mains, and nobody uses the device now; absent facts count as fine. */
  readonly conditions?: () => {
    readonly isMetered?: boolean;
    readonly isCharging?: boolean;
    readonly isIdle?: boolean;
  };
  /** Whether people see the app now. Absent where that makes no difference. */
  readonly isActive?: () => boolean;
  /**
   * Calls `listener` each time the app comes back to the foreground. Comes with {@link Platform.isActive}.
   * @returns unsubscribes.
   */
  readonly onActive?: (listener: () => void) => () => void;
  /**
   * Calls `listener` each time people stop seeing the app: systems end what nobody sees, so what ends from then on has
   * not crashed. Absent where that cannot be told, or makes no difference.
   * @returns unsubscribes.
   */
  readonly onHide?: (listener: () => void) => () => void;
  /** The Fetch API; see {@link FetchInit.onActivity} for one without streams. */
  readonly fetch: (url: string, init?: FetchInit) => Promise<Response>;
  /** Opens a model that the host names by path or URL. Absent where the runtime has no file system. */
  readonly files?: FileAccess;
}

/** File access of runtimes that have one. */
export interface FileAccess {
  /** Turns a path or `file:` URL into an absolute path. */
  resolve(path: string | URL): string;
  /** Size in bytes, or `undefined` if there is no such file. */
  size(path: string): Promise<number | undefined>;
  /** Changes when the file changes: its size and modification time. `undefined` if there is no such file. */
  stamp(path: string): Promise<string | undefined>;
  /** Reads all of a file. */
  read(path: string): Promise<Uint8Array<ArrayBuffer>>;
  /** SHA-256 of a file in lower-case hex. */
  sha256(path: string): Promise<string>;
}
