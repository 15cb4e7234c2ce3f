/**
 * Shapes of the signed metadata, as on disk and on the wire (TUF 1.0 §4, spec_version 1.0.31).
 * Field names are the specification's.
 */

/** Top-level roles. Delegated roles have other names. */
export type TopRole = 'root' | 'timestamp' | 'snapshot' | 'targets';

/** A public key (TUF 1.0 §4.2). */
export interface PublicKey {
  readonly keytype: string;
  readonly scheme: string;
  /** Ed25519: 64 hex digits. */
  readonly keyval: { readonly public: string };
}

/** Who may sign for a role. */
export interface RoleKeys {
  readonly keyids: readonly string[];
  readonly threshold: number;
}

interface SignedBase<Type extends string> {
  readonly _type: Type;
  readonly spec_version: string;
  readonly version: number;
  /** UTC, `YYYY-MM-DDTHH:MM:SSZ`. */
  readonly expires: string;
}

/** Trusted keys and roles; signed offline. */
export interface Root extends SignedBase<'root'> {
  readonly consistent_snapshot: boolean;
  readonly keys: Readonly<Record<string, PublicKey>>;
  readonly roles: Readonly<Record<TopRole, RoleKeys>>;
}

/** Version, and optionally length and hash, of another metadata file. */
export interface MetaFile {
  readonly version: number;
  readonly length?: number;
  readonly hashes?: Readonly<Record<string, string>>;
}

/** Which snapshot is current; signed online, short-lived. */
export interface Timestamp extends SignedBase<'timestamp'> {
  /** Inlay's own: when it was signed, `YYYY-MM-DDTHH:MM:SSZ`. A device's clock is at least that late. */
  readonly issued?: string;
  readonly meta: { readonly 'snapshot.json': MetaFile };
}

/** Which version of every targets role belongs together; signed online. */
export interface Snapshot extends SignedBase<'snapshot'> {
  readonly meta: Readonly<Record<string, MetaFile>>;
}

/** One file: its length and hashes, and what Inlay says about it. */
export interface TargetFile {
  readonly length: number;
  readonly hashes: Readonly<Record<string, string>>;
  readonly custom?: Readonly<Record<string, unknown>>;
}

/** A delegation to another role for some paths. */
export interface DelegatedRole extends RoleKeys {
  readonly name: string;
  readonly paths: readonly string[];
  readonly terminating: boolean;
}

/** Files and delegations; the top-level one is signed offline. */
export interface Targets extends SignedBase<'targets'> {
  readonly targets: Readonly<Record<string, TargetFile>>;
  /** Inlay's own; see {@link TargetsPolicy}. */
  readonly custom?: TargetsPolicy;
  readonly delegations?: {
    readonly keys: Readonly<Record<string, PublicKey>>;
    readonly roles: readonly DelegatedRole[];
  };
}

/** Any signed body. */
export type Signed = Root | Timestamp | Snapshot | Targets;

/** A signature over the canonical JSON of `signed`. */
export interface MetadataSignature {
  readonly keyid: string;
  /** Hex. */
  readonly sig: string;
}

/** Signed metadata as it travels. */
export interface Envelope<Body extends Signed = Signed> {
  readonly signatures: readonly MetadataSignature[];
  readonly signed: Body;
}

/** What the offline-signed `targets` says about releases that must not run any more, in its field `custom`. */
export interface TargetsPolicy {
  /** By model name. */
  readonly models?: Readonly<Record<string, ModelPolicy>>;
}

/** Which releases of one model are withdrawn. */
export interface ModelPolicy {
  /** Releases with a lower sequence number do not count. Default 0; only rises. */
  readonly floorSeq?: number;
  /** Sequence numbers of single releases that do not count. Never leave the list. */
  readonly revoked?: readonly number[];
}

/** What `custom` of an offline-signed target says that belongs to a release, but is not its model. */
export interface CompanionTarget {
  readonly model: string;
  readonly seq: number;
  readonly role: 'manifest' | 'variant' | 'golden' | 'profile' | 'compressed' | 'patch';
}

/** What `custom` of an offline-signed model target says. */
export interface ModelTarget {
  /** Model name, `[a-z0-9][a-z0-9._-]*`. */
  readonly model: string;
  /** Version that people see, such as `1.1.0`. */
  readonly version: string;
  /** Release counter of this model; grows by one. */
  readonly seq: number;
  /** The release's manifest (`update/manifest.ts`), itself a target; absent in the simplest releases. */
  readonly manifest?: { readonly path: string; readonly sha256: string; readonly length: number };
  /** Lowest version of Inlay that runs it, `major.minor.patch`. */
  readonly minSdk?: string;
  readonly licence?: string;
  readonly notes?: string;
  /** How its weights were rounded around another release's, so that a patch is small. Absent: they were not. */
  readonly compact?: {
    readonly mode: 'near' | 'small';
    /** As a share of the root mean square of an update, such as `1/4`. */
    readonly step: string;
    readonly seed: number;
    /** SHA-256 of the file that it was rounded around, lower-case hex. */
    readonly anchor: string;
  };
  /** The grid that its weights were snapped to, so that it is small by itself. Absent: they were not. */
  readonly snap?: { readonly bits: number };
}
