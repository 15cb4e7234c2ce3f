/** The single checks of the update workflow (TUF 1.0 §5.3–5.7). */

import { toHex } from '../core/bytes.ts';
import { TrustError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import type { Envelope, MetaFile, TargetFile, TopRole } from './metadata.ts';
import { parseEnvelope, type BodyByType } from './parse.ts';

/** Largest metadata files that are looked at, bytes; `delegated` is for all roles that are not named here. */
export const metadataCaps: Readonly<Record<TopRole | 'rollout' | 'delegated', number>> = {
  root: 512_000,
  timestamp: 16_384,
  snapshot: 2_000_000,
  targets: 5_000_000,
  rollout: 1_000_000,
  delegated: 1_000_000,
};

/** Largest metadata of a role, bytes. */
export function capOf(role: string): number {
  return Object.hasOwn(metadataCaps, role)
    ? metadataCaps[role as keyof typeof metadataCaps]
    : metadataCaps.delegated;
}

/** What hashes are computed with. */
export type HashPlatform = Pick<Platform, 'createSha256' | 'createSha512'>;

/** Bytes that are not believed yet. */
export interface Received {
  readonly bytes: Uint8Array;
  /** Lower-case hex; computed once. `undefined` for an algorithm that is not at hand. */
  hash(algorithm: string): string | undefined;
}

/** Metadata that was parsed, with the bytes that it came in. */
export interface Held<Type extends TopRole> extends Received {
  readonly envelope: Envelope<BodyByType[Type]>;
}

/** Takes bytes in. They must not change any more. */
export function receive(platform: HashPlatform, bytes: Uint8Array): Received {
  const known = new Map<string, string>();
  return {
    bytes,
    hash: (algorithm) => {
      const present = known.get(algorithm);
      if (present !== undefined) return present;
      const hasher =
        algorithm === 'sha256'
          ? platform.createSha256()
          : algorithm === 'sha512'
            ? platform.createSha512?.()
            : undefined;
      if (hasher === undefined) return undefined;
      hasher.update(bytes);
      const hex = toHex(hasher.digest());
      known.set(algorithm, hex);
      return hex;
    },
  };
}

/**
 * Parses metadata, unless it is beyond its cap.
 * @throws {@link TrustError} `ERR_INLAY_LENGTH` or `ERR_INLAY_METADATA_INVALID`
 */
export function read<Type extends TopRole>(role: string, type: Type, received: Received): Held<Type> {
  const { bytes } = received;
  const cap = capOf(role);
  if (bytes.length > cap) throw wrongLength(nameOf(role), bytes.length, `at most ${cap}`);
  return { ...received, envelope: parseEnvelope(bytes, type) };
}

/** Checks length and hashes of metadata that is not parsed yet (TUF 1.0 §5.5.2, §5.6.2). */
export function assertBytesPinned(role: string, received: Received, pin: MetaFile): void {
  assertBytes(nameOf(role), received, pin);
}

/** Checks length and hashes of a file against the signed targets (TUF 1.0 §5.7.3). */
export function assertTarget(path: string, received: Received, file: TargetFile): void {
  assertBytes(`The file ${show(path)}`, received, file);
}

/** Every hash that can be computed must agree, and there must be one that can, if there are any. */
function assertBytes(
  name: string,
  received: Received,
  { length, hashes }: { readonly length?: number; readonly hashes?: Readonly<Record<string, string>> },
): void {
  const { bytes } = received;
  if (length !== undefined && bytes.length !== length) throw wrongLength(name, bytes.length, String(length));
  if (hashes === undefined) return;
  const compared = Object.entries(hashes).flatMap(([algorithm, expected]) => {
    const actual = received.hash(algorithm);
    return actual === undefined ? [] : [actual === expected.toLowerCase()];
  });
  if (compared.length > 0 && !compared.includes(false)) return;
  throw new TrustError(
    'ERR_INLAY_HASH',
    `${name} does not have the hash that signed metadata gives it; fetch both again.`,
    { details: { name } },
  );
}

/** Checks that metadata is the file and the version that the metadata above it pins. */
export function assertPinned(role: string, held: Held<TopRole>, pin: MetaFile): void {
  assertBytesPinned(role, held, pin);
  const { version } = held.envelope.signed;
  assertNotLower(role, version, pin.version);
  if (version !== pin.version)
    throw invalid(`${show(role)} has version ${version} where version ${pin.version} is pinned`);
}

/** Checks that a version does not fall (TUF 1.0 §5.4.3, §5.5.5); 0 stands for a file that is gone. */
export function assertNotLower(name: string, version: number, trusted: number): void {
  if (version >= trusted) return;
  throw new TrustError(
    'ERR_INLAY_ROLLBACK',
    version === 0
      ? `The snapshot no longer lists ${show(name)}, which it listed before; serve the newest metadata.`
      : `Version ${version} of ${show(name)} is older than version ${trusted}; serve the newest metadata.`,
    { details: { role: name, version, trusted } },
  );
}

/** Checks that metadata has not expired at a time, milliseconds since 1970 (TUF 1.0 §5.4.4, §5.5.6, §5.6.5). */
export function assertFresh(role: string, held: Held<TopRole>, atMs: number): void {
  if (isFresh(held, atMs)) return;
  const { expires, version } = held.envelope.signed;
  throw new TrustError(
    'ERR_INLAY_EXPIRED',
    `${nameOf(role)} version ${version} expired at ${expires}; sign it anew, or correct the device's clock.`,
    { details: { role, version, expires } },
  );
}

/** Tells whether metadata has not expired at a time, milliseconds since 1970. */
export function isFresh({ envelope }: Held<TopRole>, atMs: number): boolean {
  return Date.parse(envelope.signed.expires) > atMs;
}

function wrongLength(name: string, length: number, expected: string): TrustError {
  return new TrustError(
    'ERR_INLAY_LENGTH',
    `${name} has ${length} bytes where ${expected} are expected; fetch it again.`,
    { details: { name, length } },
  );
}

/** Builds the error for pieces of metadata that do not belong together. */
export function invalid(problem: string): TrustError {
  return new TrustError(
    'ERR_INLAY_METADATA_INVALID',
    `Metadata does not fit together: ${problem}; fetch it again.`,
  );
}

/** Names in messages come from whoever wrote the metadata, so unusual ones are quoted, and long ones are cut. */
export function show(name: string): string {
  return /^[\w.-]{1,80}$/.test(name) ? name : JSON.stringify(name.slice(0, 80));
}

function nameOf(role: string): string {
  return `Metadata of role ${show(role)}`;
}
