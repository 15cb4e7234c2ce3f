/** Which roles a targets role trusts, and for which paths (TUF 1.0 §4.5). */

import { toUtf8 } from '../core/bytes.ts';
import type { Platform } from '../core/platform.ts';
import { sha256Hex } from './keys.ts';
import type { PublicKey, RoleKeys, Targets } from './metadata.ts';

/** A delegation as repositories of all kinds write it. */
export interface Delegation extends RoleKeys {
  readonly name: string;
  readonly terminating: boolean;
  /** Patterns; a delegation has either these or prefixes. */
  readonly paths?: readonly string[];
  /** Hex digits that the SHA-256 of a path may begin with. */
  readonly path_hash_prefixes?: readonly string[];
}

/** Roles that share their keys and split all paths among them by hash (TAP 15). */
interface SuccinctRoles extends RoleKeys {
  /** 1 to 32; there are 2 to the power of it. */
  readonly bit_length: number;
  readonly name_prefix: string;
}

interface Delegations {
  readonly keys: Readonly<Record<string, PublicKey>>;
  readonly roles?: readonly Delegation[];
  readonly succinct_roles?: SuccinctRoles;
}

type HashPlatform = Pick<Platform, 'createSha256'>;

/** Gives the delegations that cover a path, in the order in which they are to be searched (TUF 1.0 §5.6.7). */
export function delegationsFor(
  platform: HashPlatform,
  targets: Targets,
  path: string,
): readonly Delegation[] {
  const { roles = [], succinct_roles: succinct } = delegationsOf(targets) ?? {};
  if (succinct === undefined) return roles.filter((role) => covers(platform, role, path));
  const bits = Number.parseInt(sha256Hex(platform, toUtf8(path)).slice(0, 8), 16);
  return [binOf(succinct, Math.floor(bits / 2 ** (32 - succinct.bit_length)))];
}

/** Finds the delegation to a role, with the keys that its identifiers name. */
export function delegationTo(
  targets: Targets,
  name: string,
): { readonly role: Delegation; readonly keys: Readonly<Record<string, PublicKey>> } | undefined {
  const delegations = delegationsOf(targets);
  if (delegations === undefined) return undefined;
  const { keys, roles = [], succinct_roles: succinct } = delegations;
  const role = succinct ? binNamed(succinct, name) : roles.find((one) => one.name === name);
  return role && { role, keys };
}

/** Tells whether a delegation covers a path. */
export function covers(platform: HashPlatform, role: Delegation, path: string): boolean {
  const { paths, path_hash_prefixes: prefixes } = role;
  if (paths !== undefined) return paths.some((pattern) => matches(pattern, path));
  if (prefixes === undefined) return false;
  const hash = sha256Hex(platform, toUtf8(path));
  return prefixes.some((prefix) => hash.startsWith(prefix.toLowerCase()));
}

/** Tells whether a pattern covers a path: `*` and `?` match within one segment, everything else stands for itself. */
export function matches(pattern: string, path: string): boolean {
  const segments = path.split('/');
  const patterns = pattern.split('/');
  return patterns.length === segments.length && patterns.every((one, i) => isMatch(one, segments[i] ?? ''));
}

/** Goes back to the latest `*` only, which takes no longer than the product of the lengths. */
function isMatch(pattern: string, text: string): boolean {
  let at = 0;
  let star = -1;
  let taken = 0;
  for (let i = 0; i < text.length;) {
    const char = pattern[at];
    if (char === '*') {
      star = at;
      taken = i;
      at += 1;
    } else if (char !== undefined && (char === '?' || char === text[i])) {
      at += 1;
      i += 1;
    } else if (star >= 0) {
      taken += 1;
      i = taken;
      at = star + 1;
    } else return false;
  }
  return /^\**$/.test(pattern.slice(at));
}

function delegationsOf({ delegations }: Targets): Delegations | undefined {
  return delegations;
}

function binOf({ name_prefix, bit_length, keyids, threshold }: SuccinctRoles, bin: number): Delegation {
  const digits = Math.ceil(bit_length / 4);
  const name = `${name_prefix}-${bin.toString(16).padStart(digits, '0')}`;
  return { name, keyids, threshold, terminating: true };
}

function binNamed(succinct: SuccinctRoles, name: string): Delegation | undefined {
  const bin = Number.parseInt(name.slice(succinct.name_prefix.length + 1), 16);
  const named = bin < 2 ** succinct.bit_length ? binOf(succinct, bin) : undefined;
  return named?.name === name ? named : undefined;
}
