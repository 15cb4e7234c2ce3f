/** Tables of the sync server, in types that every supported database has. */

/** Signed metadata. It is the truth: releases and rollouts are read from it, nothing is stored twice. */
export interface MetadataTable {
  readonly role: string;
  readonly version: number;
  /** Exactly what was signed. */
  readonly text: string;
  /** ISO 8601, UTC. */
  readonly created_at: string;
}

/** Tokens of administrators. The token itself is not stored. */
export interface AdminTokenTable {
  /** SHA-256 of the token, lower-case hex. */
  readonly sha256: string;
  /** ISO 8601, UTC. */
  readonly created_at: string;
}

/** Who changed what. Rows are only ever added. */
export interface AuditTable {
  /** 1, 2, 3 … without gaps. */
  readonly seq: number;
  /** ISO 8601, UTC. */
  readonly at: string;
  /** First digits of the token's SHA-256, or `server`. */
  readonly actor: string;
  readonly action: string;
  /** JSON object. */
  readonly details: string;
}

/** Every table by name. */
export interface Schema {
  readonly metadata: MetadataTable;
  readonly admin_token: AdminTokenTable;
  readonly audit: AuditTable;
}
