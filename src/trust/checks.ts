/** The single checks of the update workflow (TUF 1.0 §5.3–5.6). */

import { TrustError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import { sha256Hex } from './keys.ts';
import type { Envelope, MetaFile, TopRole } from './metadata.ts';
import { parseEnvelope, type BodyByType } from './parse.ts';

/** Largest metadata files that are looked at, bytes. */
export const metadataCaps: Readonly<Record<TopRole | 'rollout', number>> = {
  root: 512_000,
  timestamp: 16_384,
  snapshot: 2_000_000,
  targets: 5_000_000,
  rollout: 1_000_000,
};

/** A role of the trusted set. */
export type TrustedRole = keyof typeof metadataCaps;

/** Metadata that was verified, with the bytes that it came in. */
export interface Held<Type extends TopRole> {
  readonly bytes: Uint8Array;
  readonly envelope: Envelope<BodyByType[Type]>;
}

/**
 * Parses metadata, unless it is beyond its cap.
 * @throws {@link TrustError} `ERR_INLAY_LENGTH` or `ERR_INLAY_METADATA_INVALID`
 */
export function read<Type extends TopRole>(role: TrustedRole, type: Type, bytes: Uint8Array): Held<Type> {
  const cap = metadataCaps[role];
  if (bytes.length > cap) throw wrongLength(role, bytes.length, `at most ${cap}`);
  return { bytes, envelope: parseEnvelope(bytes, type) };
}

/** Checks length and hash of bytes that are not parsed yet (TUF 1.0 §5.5.2, §5.6.2). */
export function assertBytesPinned(
  platform: Pick<Platform, 'createSha256'>,
  role: TrustedRole,
  bytes: Uint8Array,
  pin: MetaFile,
): void {
  if (pin.length !== undefined && bytes.length !== pin.length)
    throw wrongLength(role, bytes.length, String(pin.length));
  if (pin.hashes === undefined) return;
  const expected = pin.hashes['sha256'];
  if (expected === undefined || sha256Hex(platform, bytes) !== expected.toLowerCase()) {
    throw new TrustError(
      'ERR_INLAY_HASH',
      `Metadata of role ${role} does not have the SHA-256 that the metadata above it pins; fetch both again.`,
      { details: { role } },
    );
  }
}

/** Checks that metadata is the file and the version that the metadata above it pins. */
export function assertPinned(
  platform: Pick<Platform, 'createSha256'>,
  role: TrustedRole,
  { bytes, envelope }: Held<TopRole>,
  pin: MetaFile,
): void {
  assertBytesPinned(platform, role, bytes, pin);
  const { version } = envelope.signed;
  assertNotLower(role, version, pin.version);
  if (version !== pin.version)
    throw invalid(`${role} has version ${version} where version ${pin.version} is pinned`);
}

/** Checks that a version does not fall (TUF 1.0 §5.4.3, §5.5.5); 0 stands for a file that is gone. */
export function assertNotLower(name: string, version: number, trusted: number): void {
  if (version >= trusted) return;
  throw new TrustError(
    'ERR_INLAY_ROLLBACK',
    version === 0
      ? `The snapshot no longer lists ${name}, which it listed before; serve the newest metadata.`
      : `Version ${version} of ${name} is older than version ${trusted}; serve the newest metadata.`,
    { details: { role: name, version, trusted } },
  );
}

/** Checks that metadata has not expired at a time, milliseconds since 1970 (TUF 1.0 §5.4.4, §5.5.6, §5.6.5). */
export function assertFresh(role: TrustedRole, { envelope }: Held<TopRole>, atMs: number): void {
  const { expires, version } = envelope.signed;
  if (Date.parse(expires) > atMs) return;
  throw new TrustError(
    'ERR_INLAY_EXPIRED',
    `Metadata of role ${role} version ${version} expired at ${expires}; sign it anew, or correct the device's clock.`,
    { details: { role, version, expires } },
  );
}

/** Tells whether a delegation's pattern covers a path: `*` and `?` match within one segment (TUF 1.0 §4.5). */
export function matches(pattern: string, path: string): boolean {
  const source = pattern
    .replace(/[.+^${}()|[\]\\]/g, '\\$&')
    .replace(/\*+/g, '[^/]*')
    .replace(/\?/g, '[^/]');
  return new RegExp(`^${source}$`).test(path);
}

function wrongLength(role: TrustedRole, length: number, expected: string): TrustError {
  return new TrustError(
    'ERR_INLAY_LENGTH',
    `Metadata of role ${role} has ${length} bytes where ${expected} are expected; fetch it again.`,
    { details: { role, length } },
  );
}

/** Builds the error for pieces of metadata that do not belong together. */
export function invalid(problem: string): TrustError {
  return new TrustError(
    'ERR_INLAY_METADATA_INVALID',
    `Metadata does not fit together: ${problem}; fetch it again.`,
  );
}
