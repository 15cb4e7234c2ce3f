/**
 * The sync server: a Hono app, and a launcher for Node.
 * @module inlay/server
 */

export type { AccessRole, AccessScope } from './access.ts';
export { createSyncApp, type SyncAppOptions } from './app.ts';
export type { AccessLimits } from './auth.ts';
export type { ActionRequest, CatalogOptions, ChangeOptions, RolloutRequest } from './catalog.ts';
export { moveDatabase, type MoveOptions } from './db/move.ts';
export { openDatabase, type Database, type OpenOptions } from './db/open.ts';
export { openSqlite } from './db/sqlite.ts';
export {
  createRepository,
  type AuditEvent,
  type AuditHead,
  type AuditRecord,
  type AuditVerdict,
  type Heads,
  type NewMetadata,
  type Repository,
  type Role,
} from './db/repository.ts';
export type { Schema } from './db/schema.ts';
export type { OidcOptions } from './oidc.ts';
export type { Rate } from './rate-limit.ts';
export { startServer, type RunningServer, type StartServerOptions } from './node.ts';
export { createOnlineSigner, type OnlineSignerOptions } from './signer/online-signer.ts';
export type {
  OnlineSigner,
  RolloutSignRequest,
  SignedSet,
  SignerFacts,
  SignerMemory,
  SnapshotSignRequest,
  TimestampSignRequest,
} from './signer/port.ts';
export type { ExpiryWarning, ServerStatus } from './status.ts';
export {
  createTokens,
  type NewToken,
  type TokenRecord,
  type TokenRequest,
  type Tokens,
  type TokensParts,
} from './tokens.ts';
export type { BlobStorage } from './storage/blobs.ts';
export { openDiskStorage, type DiskFiles, type DiskStorageOptions } from './storage/disk.ts';
export { openS3Storage, type S3StorageOptions } from './storage/s3.ts';
