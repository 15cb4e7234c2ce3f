import { createHash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { toUtf8 } from '../../src/core/bytes.ts';
import type { Platform } from '../../src/core/platform.ts';
import { nodePlatform } from '../../src/platform-node.ts';
import { addRelease, createRoot, createTargets, expiresIn } from '../../src/publish/release.ts';
import { signMetadata } from '../../src/publish/sign.ts';
import { generateKeyPair, openSigner, toKeyFile, type Signer } from '../../src/publish/signer.ts';
import { startServer, type RunningServer, type StartServerOptions } from '../../src/server/index.ts';
import { createTrustedMetadata } from '../../src/trust/client.ts';
import type { NamedKey } from '../../src/trust/keys.ts';
import type { Targets } from '../../src/trust/metadata.ts';
import type { RolloutPlans, SignedPlan } from '../../src/update/plan.ts';

/** A platform whose wall clock only moves when told to. */
export interface TestPlatform extends Platform {
  advanceHours(hours: number): void;
}

export function testPlatform(startMs: number = Date.parse('2026-03-01T12:00:00Z')): TestPlatform {
  let now = startMs;
  return {
    ...nodePlatform(),
    now: () => now,
    advanceHours: (hours) => {
      now += hours * 3_600_000;
    },
  };
}

export async function temporaryDirectory(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'inlay-test-'));
  onTestFinished(() => rm(path, { recursive: true, force: true, maxRetries: 3 }));
  return path;
}

export function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** The smallest file that is an ONNX model: IR version 8, opset 17, an empty graph, and a producer to tell it apart. */
export function tinyModel(producer: string): Uint8Array<ArrayBuffer> {
  const name = new TextEncoder().encode(producer);
  return Uint8Array.of(8, 8, 0x12, name.length, ...name, 0x3a, 3, 0x12, 1, 0x67, 0x42, 2, 0x10, 0x11);
}

/** A server as an administrator reaches it. */
export interface ReachableServer {
  readonly url: string;
  readonly token: string;
  readonly onlineKey: NamedKey;
  readonly platform: Platform;
  /** Sends a request with the token. */
  admin(path: string, init?: RequestInit): Promise<Response>;
  put(path: string, body: string | Uint8Array<ArrayBuffer>): Promise<Response>;
  get(path: string, headers?: Record<string, string>): Promise<Response>;
}

/** A server of this process. */
export interface TestServer extends RunningServer, ReachableServer {
  readonly token: string;
  readonly dataDir: string;
  readonly platform: TestPlatform;
  readonly errors: unknown[];
}

export function reach(
  server: Pick<ReachableServer, 'url' | 'token' | 'onlineKey' | 'platform'>,
): ReachableServer {
  const { url, token } = server;
  const admin = (path: string, init: RequestInit = {}): Promise<Response> =>
    fetch(`${url}/v1/admin/${path}`, { ...init, headers: { Authorization: `Bearer ${token}` } });
  return {
    ...server,
    admin,
    put: (path, body) => admin(path, { method: 'PUT', body }),
    get: (path, headers = {}) => fetch(`${url}${path}`, { headers }),
  };
}

export async function startTestServer(
  options: StartServerOptions & { dataDir?: string; token?: string; platform?: TestPlatform } = {},
): Promise<TestServer> {
  const dataDir = options.dataDir ?? (await temporaryDirectory());
  const platform = options.platform ?? testPlatform();
  const errors: unknown[] = [];
  const server = await startServer({
    // The clock of a test is in this process.
    signer: 'inline',
    env: {},
    ...options,
    port: 0,
    dataDir,
    platform,
    onError: (error) => errors.push(error),
  });
  onTestFinished(() => server.close());
  const token = server.token ?? options.token ?? '';
  return { ...server, ...reach({ ...server, token, platform }), token, dataDir, platform, errors };
}

/** Offline keys and what they signed last. */
export interface Publisher {
  readonly root: Signer;
  readonly signer: Signer;
  targets: Targets;
}

export async function createSigner(platform: Platform): Promise<Signer> {
  const { subtle } = globalThis.crypto;
  return openSigner({ subtle, platform }, toKeyFile(await generateKeyPair(subtle)));
}

export async function createPublisher(platform: Platform, onlineKey: NamedKey): Promise<Publisher> {
  const expires = expiresIn(platform.now(), 180);
  return {
    root: await createSigner(platform),
    signer: await createSigner(platform),
    targets: createTargets({ onlineKey, expires }),
  };
}

export function rootOf(publisher: Publisher, onlineKey: NamedKey, expires: string, version = 1) {
  return createRoot({
    rootKeys: [publisher.root],
    targetsKeys: [publisher.signer],
    onlineKey,
    expires,
    version,
  });
}

/** Installs root 1 and targets 1. */
export async function install(server: ReachableServer): Promise<Publisher> {
  const publisher = await createPublisher(server.platform, server.onlineKey);
  const root = rootOf(publisher, server.onlineKey, expiresIn(server.platform.now(), 365));
  await expectOk(server.put('root', await signMetadata(root, [publisher.root])));
  await expectOk(server.put('targets', await signMetadata(publisher.targets, [publisher.signer])));
  return publisher;
}

/** Uploads and publishes bytes as a release. */
export async function publish(
  server: ReachableServer,
  publisher: Publisher,
  version: string,
  bytes: Uint8Array<ArrayBuffer> = tinyModel(version),
): Promise<{ readonly path: string; readonly url: string; readonly sha256: string }> {
  const hash = sha256(bytes);
  await expectOk(server.put(`blobs/${hash}`, bytes));
  const { targets, path } = release(server, publisher, version, bytes);
  await expectOk(server.put('targets', await signMetadata(targets, [publisher.signer])));
  publisher.targets = targets;
  return { path, url: `/v1/targets/${path.replace(/[^/]+$/, (file) => `${hash}.${file}`)}`, sha256: hash };
}

export function release(server: ReachableServer, publisher: Publisher, version: string, bytes: Uint8Array) {
  return addRelease(publisher.targets, {
    model: 'digits',
    version,
    file: 'digits.onnx',
    length: bytes.length,
    sha256: sha256(bytes),
    expires: expiresIn(server.platform.now(), 180),
  });
}

export async function expectOk(response: Promise<Response>): Promise<unknown> {
  const { ok, status, url } = await response;
  const text = await (await response).text();
  if (!ok) throw new Error(`${url} answered ${status}: ${text}`);
  return JSON.parse(text);
}

/** Status and code of a refusal. */
export async function problemOf(response: Promise<Response>): Promise<[number, string]> {
  const { status } = await response;
  const { code, message, ...rest } = (await (await response).json()) as Record<string, string>;
  if (message === undefined || Object.keys(rest).length > 0)
    throw new Error('An error is { code, message }.');
  return [status, code ?? ''];
}

/** Random bytes that look like nothing. */
export function randomBytes(length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; at += 65_536)
    globalThis.crypto.getRandomValues(bytes.subarray(at, at + 65_536));
  return bytes;
}

/** What a device gets in one poll. */
export interface Tip {
  readonly roots: string[];
  readonly timestamp: string;
  readonly snapshot: string;
  readonly rollout: string;
}

export async function tipOf(server: ReachableServer, root = 0): Promise<Tip> {
  return (await expectOk(server.get(`/v1/tip?root=${root}`))) as Tip;
}

/** Verifies everything as a device does. */
export async function verify(
  server: ReachableServer,
): Promise<{ targets: Targets; plans: readonly SignedPlan[] }> {
  const { roots, timestamp, snapshot, rollout } = await tipOf(server);
  const [first = '', ...later] = roots;
  const trusted = await createTrustedMetadata({ platform: server.platform, root: toUtf8(first) });
  for (const text of later) await trusted.updateRoot(toUtf8(text));
  await trusted.updateTimestamp(toUtf8(timestamp));
  await trusted.updateSnapshot(toUtf8(snapshot));
  const version = trusted.snapshot?.meta['targets.json']?.version;
  const targets = await server.get(`/v1/metadata/${version}.targets.json`);
  await trusted.updateTargets(new Uint8Array(await targets.arrayBuffer()));
  await trusted.updateRollout(toUtf8(rollout));
  trusted.assertCurrent();
  const { plans } = trusted.rollout?.targets['rollout/stable.json']?.custom as unknown as RolloutPlans;
  return { targets: trusted.targets as Targets, plans };
}
