/** A TUF repository in memory that signs whatever a test wants, and devices that follow it. */

import { concatBytes, fromUtf8, toHex, toUtf8 } from '../../../src/core/bytes.ts';
import { isInlayError } from '../../../src/core/errors.ts';
import { canonicalJson } from '../../../src/trust/canonical-json.ts';
import type { TrustedMetadata } from '../../../src/trust/client.ts';
import { keyIdOf } from '../../../src/trust/keys.ts';
import type { MetaFile, PublicKey, TargetFile, TopRole } from '../../../src/trust/metadata.ts';
import { createRepositoryClient, type MetadataSource } from '../../../src/trust/repository-client.ts';
import { createSignatures } from '../../../src/signatures.ts';
import { testPlatform, testStart, type TestPlatform } from '../platform.ts';

export type Scheme = 'ed25519' | 'ecdsa-sha2-nistp256' | 'rsassa-pss-sha256';

export interface SimulatedSigner {
  readonly keyid: string;
  readonly key: PublicKey;
  sign(message: Uint8Array): Promise<Uint8Array>;
}

interface Roles {
  keyids: string[];
  threshold: number;
}

interface Body {
  _type: string;
  spec_version: string;
  version: number;
  expires: string;
  [unknown: string]: unknown;
}
export interface RootBody extends Body {
  consistent_snapshot: boolean;
  keys: Record<string, PublicKey>;
  roles: Record<TopRole, Roles>;
}
export interface MetaBody extends Body {
  meta: Record<string, MetaFile>;
}
export interface SimulatedDelegation extends Roles {
  name: string;
  terminating: boolean;
  paths?: string[];
  path_hash_prefixes?: string[];
}
export interface TargetsBody extends Body {
  targets: Record<string, TargetFile>;
  delegations?: {
    keys: Record<string, PublicKey>;
    roles?: SimulatedDelegation[];
    succinct_roles?: Roles & { bit_length: number; name_prefix: string };
  };
}

const day = 86_400_000;

/** Writes a time that lies so many days after the start of the tests. */
export function timeAt(days: number): string {
  return `${new Date(testStart + days * day).toISOString().slice(0, 19)}Z`;
}

/** A platform with everything that signatures and hashes need. */
function trustPlatform(): TestPlatform {
  const platform = testPlatform();
  return { ...platform, verifySignature: createSignatures(globalThis.crypto.subtle, platform.verifyEd25519) };
}

const algorithms = {
  ed25519: 'Ed25519',
  'ecdsa-sha2-nistp256': { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' },
  'rsassa-pss-sha256': {
    name: 'RSA-PSS',
    hash: 'SHA-256',
    saltLength: 32,
    modulusLength: 2048,
    publicExponent: Uint8Array.of(1, 0, 1),
  },
} as const;

const keytypes = { ed25519: 'ed25519', 'ecdsa-sha2-nistp256': 'ecdsa', 'rsassa-pss-sha256': 'rsa' } as const;

/** Makes a key pair. */
export async function newSimulatedSigner(
  scheme: Scheme = 'ed25519',
  extra: object = {},
): Promise<SimulatedSigner> {
  const { subtle } = globalThis.crypto;
  const algorithm: AlgorithmIdentifier = algorithms[scheme];
  const pair = (await subtle.generateKey(algorithm, true, ['sign', 'verify'])) as CryptoKeyPair;
  const format = scheme === 'ed25519' ? 'raw' : 'spki';
  const bytes = new Uint8Array(await subtle.exportKey(format, pair.publicKey));
  const key = {
    keytype: keytypes[scheme],
    scheme,
    keyval: { public: scheme === 'ed25519' ? toHex(bytes) : toPem(bytes) },
    ...extra,
  };
  return {
    keyid: keyIdOf(testPlatform(), key),
    key,
    sign: async (message) => {
      const signature = new Uint8Array(await subtle.sign(algorithm, pair.privateKey, message.slice()));
      return scheme === 'ecdsa-sha2-nistp256' ? toDer(signature) : signature;
    },
  };
}

export function toPem(der: Uint8Array): string {
  const lines = btoa(String.fromCharCode(...der)).replace(/.{64}/g, '$&\n');
  return `-----BEGIN PUBLIC KEY-----\n${lines.trimEnd()}\n-----END PUBLIC KEY-----\n`;
}

/** WebCrypto's two numbers as the SEQUENCE that TUF has. */
export function toDer(raw: Uint8Array): Uint8Array {
  const integers = [raw.subarray(0, 32), raw.subarray(32)].map((number) => {
    const digits = number.subarray(number.findIndex((byte) => byte !== 0));
    const sign = (digits[0] ?? 0) >= 0x80 ? [0] : [];
    return Uint8Array.of(2, digits.length + sign.length, ...sign, ...digits);
  });
  const body = concatBytes(integers);
  return concatBytes([Uint8Array.of(0x30, body.length), body]);
}

export interface Simulator {
  readonly platform: TestPlatform;
  readonly root: RootBody;
  readonly timestamp: MetaBody;
  readonly snapshot: MetaBody;
  readonly targets: TargetsBody;
  /** Bodies of all roles; a change counts from the next `publish` on. */
  readonly bodies: Map<string, Body>;
  readonly signers: Map<string, SimulatedSigner[]>;
  /** What the server has, by name. */
  readonly files: Map<string, Uint8Array>;
  readonly blobs: Map<string, Uint8Array>;
  /** Names that were asked for, in order. */
  readonly requests: string[];
  /** Whether snapshot and timestamp also give lengths and hashes. */
  usesHashes: boolean;
  /** Signs roles with the next version each, and pins them. */
  publish(...roles: string[]): Promise<void>;
  /** Signs a role as it is, pins nothing. */
  sign(role: string): Promise<Uint8Array>;
  /** Trusts further keys for a role of the root. */
  addKeys(role: TopRole, ...signers: SimulatedSigner[]): void;
  /** Trusts and uses only these for a role of the root. */
  setKeys(role: TopRole, ...signers: SimulatedSigner[]): void;
  /** Delegates to a role, which gets a new key unless it has one. */
  delegate(delegator: string, name: string, delegation?: Partial<SimulatedDelegation>): Promise<void>;
  addTarget(role: string, path: string, content: Uint8Array, hashes?: readonly string[]): Promise<void>;
  targetsOf(role: string): TargetsBody;
  device(): Device;
}

export interface Device {
  /** What it keeps, by key. */
  readonly records: Map<string, Uint8Array>;
  readonly root: Uint8Array;
  /** Versions of what it keeps, by role. */
  versions(): Record<string, number>;
  refresh(): Promise<TrustedMetadata>;
  /** One run of an app that downloads files, in order, after a refresh. */
  download(...paths: string[]): Promise<Uint8Array[]>;
  /** The code with which a refresh fails, or `ok`. */
  outcome(task?: Promise<unknown>): Promise<string>;
}

const sha = async (algorithm: 'SHA-256' | 'SHA-512', bytes: Uint8Array): Promise<string> =>
  toHex(new Uint8Array(await globalThis.crypto.subtle.digest(algorithm, bytes.slice())));

/** Creates a repository whose four roles have one key each and version 1. */
export async function createSimulator(scheme: Scheme = 'ed25519'): Promise<Simulator> {
  const platform = trustPlatform();
  const base = (type: string): Body => ({
    _type: type,
    spec_version: '1.0.31',
    version: 0,
    expires: timeAt(30),
  });
  const none = (): Roles => ({ keyids: [], threshold: 1 });
  const root: RootBody = {
    ...base('root'),
    consistent_snapshot: true,
    keys: {},
    roles: { root: none(), timestamp: none(), snapshot: none(), targets: none() },
  };
  const timestamp: MetaBody = { ...base('timestamp'), meta: {} };
  const snapshot: MetaBody = { ...base('snapshot'), meta: {} };
  const targets: TargetsBody = { ...base('targets'), targets: {} };
  const bodies = new Map<string, Body>(Object.entries({ root, timestamp, snapshot, targets }));
  const signers = new Map<string, SimulatedSigner[]>();
  const files = new Map<string, Uint8Array>();
  const blobs = new Map<string, Uint8Array>();
  const requests: string[] = [];

  const simulator: Simulator = {
    platform,
    root,
    timestamp,
    snapshot,
    targets,
    bodies,
    signers,
    files,
    blobs,
    requests,
    usesHashes: false,
    sign: async (role) => {
      const signed = bodies.get(role);
      const signatures = [];
      for (const { keyid, sign } of signers.get(role) ?? []) {
        signatures.push({ keyid, sig: toHex(await sign(canonicalJson(signed))) });
      }
      return toUtf8(JSON.stringify({ signatures, signed }, undefined, 1));
    },
    publish: async (...roles) => {
      for (const role of roles) {
        const body = bodies.get(role);
        if (!body) throw new Error(`There is no role ${role}.`);
        body.version += 1;
        const bytes = await simulator.sign(role);
        const isVersioned = role !== 'timestamp' && (role === 'root' || root.consistent_snapshot);
        files.set(`${isVersioned ? `${body.version}.` : ''}${quoted(role)}.json`, bytes);
        const meta: MetaFile = {
          version: body.version,
          ...(simulator.usesHashes && {
            length: bytes.length,
            hashes: { sha256: await sha('SHA-256', bytes) },
          }),
        };
        if (role === 'snapshot') timestamp.meta['snapshot.json'] = meta;
        else if (role !== 'root' && role !== 'timestamp') snapshot.meta[`${role}.json`] = meta;
      }
    },
    addKeys: (role, ...added) => {
      for (const { keyid, key } of added) {
        root.keys[keyid] = key;
        root.roles[role].keyids.push(keyid);
      }
      signers.set(role, [...(signers.get(role) ?? []), ...added]);
    },
    setKeys: (role, ...only) => {
      root.roles[role].keyids = [];
      signers.set(role, []);
      simulator.addKeys(role, ...only);
    },
    targetsOf: (role) => {
      const body = bodies.get(role);
      if (!body || !('targets' in body)) throw new Error(`There is no targets role ${role}.`);
      return body as TargetsBody;
    },
    delegate: async (delegator, name, delegation = {}) => {
      if (!bodies.has(name)) bodies.set(name, { ...base('targets'), targets: {} });
      const signer = await newSimulatedSigner(scheme);
      signers.set(name, [...(signers.get(name) ?? []), signer]);
      const body = simulator.targetsOf(delegator);
      body.delegations ??= { keys: {}, roles: [] };
      body.delegations.keys[signer.keyid] = signer.key;
      const { path_hash_prefixes: prefixes } = delegation;
      body.delegations.roles?.push({
        name,
        keyids: [signer.keyid],
        threshold: 1,
        terminating: false,
        ...(prefixes === undefined && { paths: ['*'] }),
        ...delegation,
      });
    },
    addTarget: async (role, path, content, kinds = ['sha256']) => {
      const known: Record<string, string> = {
        sha256: await sha('SHA-256', content),
        sha512: await sha('SHA-512', content),
      };
      const hashes = Object.fromEntries(kinds.map((kind) => [kind, known[kind] ?? 'ab'.repeat(32)]));
      simulator.targetsOf(role).targets[path] = { length: content.length, hashes };
      const slash = path.lastIndexOf('/') + 1;
      const names = root.consistent_snapshot
        ? Object.values(hashes).map((hash) => `${path.slice(0, slash)}${hash}.${path.slice(slash)}`)
        : [path];
      for (const name of names) blobs.set(name, content);
    },
    device: () => createDevice(simulator),
  };
  for (const role of ['root', 'timestamp', 'snapshot', 'targets'] as const) {
    simulator.addKeys(role, await newSimulatedSigner(scheme));
  }
  await simulator.publish('targets', 'snapshot', 'timestamp', 'root');
  return simulator;
}

function createDevice(simulator: Simulator): Device {
  const { platform, files, blobs, requests } = simulator;
  const root = files.get('1.root.json') ?? new Uint8Array();
  const records = new Map<string, Uint8Array>();
  const source: MetadataSource = {
    fetchMetadata: async (name, capBytes) => {
      requests.push(name);
      const bytes = files.get(name);
      return bytes && capped(bytes, capBytes);
    },
    load: async (key) => records.get(key),
    save: async (changes) => {
      for (const [key, bytes] of Object.entries(changes)) {
        if (bytes) records.set(key, bytes);
        else records.delete(key);
      }
    },
  };
  /** One run of the app. */
  const open = (): ReturnType<typeof createRepositoryClient> =>
    createRepositoryClient({
      platform,
      root,
      source,
      fetchTarget: async (name, capBytes) => {
        requests.push(name);
        const bytes = blobs.get(decodeURIComponent(name));
        if (!bytes) throw new Error(`There is no file ${name}.`);
        return capped(bytes, capBytes);
      },
    });
  const device: Device = {
    records,
    root,
    versions: () => {
      const versions: Record<string, number> = { root: 1 };
      for (const [key, bytes] of records) {
        const { version } = (JSON.parse(fromUtf8(bytes)) as { signed: { version: number } }).signed;
        const role = key.startsWith('root.') ? 'root' : key.replace(/^delegated\//, '');
        versions[role] = Math.max(version, key.startsWith('root.') ? (versions['root'] ?? 0) : 0);
      }
      return versions;
    },
    refresh: () => open().refresh(),
    download: async (...paths) => {
      const client = open();
      const contents: Uint8Array[] = [];
      for (const path of paths) {
        const target = await client.find(path);
        if (!target) throw new Error(`Nobody lists ${path}.`);
        contents.push(await client.download(target));
      }
      return contents;
    },
    outcome: async (task = device.refresh()) => {
      try {
        await task;
        return 'ok';
      } catch (error) {
        return isInlayError(error) ? error.code : String(error);
      }
    },
  };
  return device;
}

function capped(bytes: Uint8Array, capBytes: number): Uint8Array {
  if (bytes.length > capBytes) throw new Error('The request was ended.');
  return bytes;
}

/** As in URLs: everything but letters, digits and `-._~`. */
function quoted(name: string): string {
  return encodeURIComponent(name).replace(
    /[!'()*]/g,
    (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}
