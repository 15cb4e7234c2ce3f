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

/** What `custom` of an offline-signed model target says. */
export interface ModelTarget {
  /** Model name, `[a-z0-9][a-z0-9._-]*`. */
  readonly model: string;
  /** Version that people see, such as `1.1.0`. */
  readonly version: string;
  /** Release counter of this model; grows by one. */
  readonly seq: number;
}
