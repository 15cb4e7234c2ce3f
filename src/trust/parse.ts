/** From bytes to typed metadata: every known field is checked, unknown ones stay, since they are signed too. */

import { TrustError } from '../core/errors.ts';
import { parseStrictJson } from './canonical-json.ts';
import type { Envelope, Root, Snapshot, Targets, Timestamp, TopRole } from './metadata.ts';

/** Body of each kind of metadata, by the value of its `_type`. */
export interface BodyByType {
  readonly root: Root;
  readonly timestamp: Timestamp;
  readonly snapshot: Snapshot;
  readonly targets: Targets;
}

/** A JSON object whose fields are not known yet. */
export type Fields = Readonly<Record<string, unknown>>;

/** Names of the top-level roles. */
export const topRoles: readonly TopRole[] = ['root', 'timestamp', 'snapshot', 'targets'];

/**
 * Parses signed metadata of one kind. Signatures are not checked here.
 * @param type value that `_type` must have; delegated roles are `targets`.
 * @returns exactly what was parsed, unknown fields included, so that the signed bytes can be rebuilt.
 * @throws {@link TrustError} `ERR_INLAY_METADATA_INVALID`
 */
export function parseEnvelope<Type extends TopRole>(
  bytes: Uint8Array,
  type: Type,
): Envelope<BodyByType[Type]> {
  const envelope = fieldsOf(parseStrictJson(bytes), type);
  for (const [i, item] of listOf(envelope['signatures'], 'signatures').entries()) {
    const signature = fieldsOf(item, `signatures[${i}]`);
    textOf(signature['keyid'], `signatures[${i}].keyid`);
    demand(isHex(signature['sig']), `signatures[${i}].sig`, 'is not hex');
  }
  const signed = fieldsOf(envelope['signed'], 'signed');
  demand(signed['_type'] === type, '_type', `is not ${type}`);
  demand(
    /^1\.\d+(\.\d+)?$/.test(textOf(signed['spec_version'], 'spec_version')),
    'spec_version',
    'is not 1.x',
  );
  countOf(signed['version'], 'version');
  demand(isTime(signed['expires']), 'expires', 'is not a time like 2030-01-31T12:00:00Z');
  checks[type](signed);
  return envelope as unknown as Envelope<BodyByType[Type]>;
}

const checks: Readonly<Record<TopRole, (signed: Fields) => void>> = {
  root: (signed) => {
    demand(typeof signed['consistent_snapshot'] === 'boolean', 'consistent_snapshot', 'is not a boolean');
    checkKeys(signed['keys'], 'keys');
    const roles = fieldsOf(signed['roles'], 'roles');
    for (const role of topRoles) checkRole(fieldsOf(roles[role], `roles.${role}`), `roles.${role}`);
  },
  timestamp: (signed) => {
    checkMetaFile(fieldsOf(signed['meta'], 'meta')['snapshot.json'], 'meta.snapshot');
  },
  snapshot: (signed) => {
    const meta = fieldsOf(signed['meta'], 'meta');
    demand('targets.json' in meta, 'meta', 'does not list targets.json');
    for (const [name, file] of Object.entries(meta)) {
      const where = (): string => `meta.${show(name)}`;
      demand(name.endsWith('.json'), where, 'is not named like role.json');
      checkMetaFile(file, where);
    }
  },
  targets: (signed) => {
    for (const [path, item] of Object.entries(fieldsOf(signed['targets'], 'targets'))) {
      // There may be thousands.
      const where = (field = ''): string => `targets.${show(path)}${field}`;
      const file = fieldsOf(item, where);
      demand(path !== '' && !path.startsWith('/'), where, 'is not a relative path');
      demand(isSize(file['length']), () => where('.length'), 'is not a number of bytes');
      checkHashes(file['hashes'], where);
      if (file['custom'] !== undefined) fieldsOf(file['custom'], () => where('.custom'));
    }
    if (signed['delegations'] !== undefined) checkDelegations(fieldsOf(signed['delegations'], 'delegations'));
  },
};

function checkDelegations(delegations: Fields): void {
  checkKeys(delegations['keys'], 'delegations.keys');
  if (delegations['succinct_roles'] !== undefined) {
    demand(delegations['roles'] === undefined, 'delegations', 'has roles and succinct_roles');
    checkSuccinctRoles(fieldsOf(delegations['succinct_roles'], 'delegations.succinct_roles'));
    return;
  }
  const names = new Set<string>(topRoles);
  for (const [i, item] of listOf(delegations['roles'], 'delegations.roles').entries()) {
    const where = `delegations.roles[${i}]`;
    const role = fieldsOf(item, where);
    const name = textOf(role['name'], `${where}.name`);
    demand(!names.has(name), `${where}.name`, `${show(name)} is used twice or is a top-level role`);
    names.add(name);
    checkRole(role, where);
    if (role['path_hash_prefixes'] === undefined) {
      for (const path of listOf(role['paths'], `${where}.paths`)) textOf(path, `${where}.paths`);
    } else {
      demand(role['paths'] === undefined, where, 'has paths and path_hash_prefixes');
      for (const prefix of listOf(role['path_hash_prefixes'], `${where}.path_hash_prefixes`)) {
        const isPrefix = /^[0-9a-f]{1,64}$/i.test(textOf(prefix, `${where}.path_hash_prefixes`));
        demand(isPrefix, `${where}.path_hash_prefixes`, 'is not hex');
      }
    }
    demand(typeof role['terminating'] === 'boolean', `${where}.terminating`, 'is not a boolean');
  }
}

/** TAP 15. */
function checkSuccinctRoles(succinct: Fields): void {
  const where = 'delegations.succinct_roles';
  checkRole(succinct, where);
  textOf(succinct['name_prefix'], `${where}.name_prefix`);
  const bits = succinct['bit_length'];
  demand(isSize(bits) && bits >= 1 && bits <= 32, `${where}.bit_length`, 'is not from 1 to 32');
}

function checkKeys(value: unknown, where: string): void {
  for (const [id, item] of Object.entries(fieldsOf(value, where))) {
    const key = fieldsOf(item, `${where}.${show(id)}`);
    textOf(key['keytype'], `${where}.${show(id)}.keytype`);
    textOf(key['scheme'], `${where}.${show(id)}.scheme`);
    textOf(
      fieldsOf(key['keyval'], `${where}.${show(id)}.keyval`)['public'],
      `${where}.${show(id)}.keyval.public`,
    );
  }
}

function checkRole(role: Fields, where: string): void {
  const ids = listOf(role['keyids'], `${where}.keyids`).map((id) => textOf(id, `${where}.keyids`));
  demand(new Set(ids).size === ids.length, `${where}.keyids`, 'lists a key twice');
  countOf(role['threshold'], `${where}.threshold`);
}

function checkMetaFile(value: unknown, where: Where): void {
  const file = fieldsOf(value, where);
  countOf(file['version'], () => `${placeOf(where)}.version`);
  if (file['length'] !== undefined)
    demand(isSize(file['length']), () => `${placeOf(where)}.length`, 'is not a number of bytes');
  if (file['hashes'] !== undefined) checkHashes(file['hashes'], where);
}

function checkHashes(value: unknown, where: Where): void {
  const place = (): string => `${placeOf(where)}.hashes`;
  const hashes = Object.entries(fieldsOf(value, place));
  demand(hashes.length > 0, place, 'is empty');
  for (const [algorithm, hash] of hashes) {
    const fits = isHex(hash) && hash !== '' && (algorithm !== 'sha256' || hash.length === 64);
    demand(fits, () => `${place()}.${show(algorithm)}`, 'is not a hash in hex');
  }
}

/** A place in the metadata, for messages; what has many places names them only when it has to. */
type Where = string | (() => string);

function placeOf(where: Where): string {
  return typeof where === 'string' ? where : where();
}

function fieldsOf(value: unknown, where: Where): Fields {
  return isFields(value) ? value : invalid(where, 'is not an object');
}

function listOf(value: unknown, where: string): readonly unknown[] {
  return Array.isArray(value) ? value : invalid(where, 'is not a list');
}

function textOf(value: unknown, where: string): string {
  return typeof value === 'string' && value !== '' ? value : invalid(where, 'is not a non-empty string');
}

function countOf(value: unknown, where: Where): void {
  demand(isSize(value) && value >= 1, where, 'is not an integer of at least 1');
}

/** Tells whether a value is an object with fields rather than a list or `null`. */
export function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Tells whether a value is a non-negative safe integer. */
export function isSize(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function isHex(value: unknown): value is string {
  return typeof value === 'string' && value.length % 2 === 0 && /^[0-9a-f]*$/i.test(value);
}

/** Tells whether a value is a time as metadata writes it, `YYYY-MM-DDTHH:MM:SSZ`. */
export function isTime(value: unknown): value is string {
  if (typeof value !== 'string' || !/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/.test(value)) return false;
  const ms = Date.parse(value);
  // Some engines take 30 February for 1 March.
  return !Number.isNaN(ms) && new Date(ms).toISOString().startsWith(value.slice(0, -1));
}

/** Names in messages come from whoever wrote the metadata, so they are quoted and cut. */
function show(name: string): string {
  return JSON.stringify(name.slice(0, 80));
}

function demand(ok: boolean, where: Where, problem: string): void {
  if (!ok) invalid(where, problem);
}

function invalid(where: Where, problem: string): never {
  const field = placeOf(where);
  throw new TrustError(
    'ERR_INLAY_METADATA_INVALID',
    `Metadata is invalid: ${field} ${problem}; have it published anew.`,
    { details: { field } },
  );
}
