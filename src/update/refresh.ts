/** One update cycle: from what is stored, over the network, to metadata that is verified and current. */

import { abortWith, reasonOf } from '../core/abort.ts';
import { toUtf8 } from '../core/bytes.ts';
import { isInlayError, NetworkError, type ErrorCode } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import { createTrustedMetadata, metadataCaps, type TrustedMetadata } from '../trust/client.ts';
import { isFields, parseEnvelope } from '../trust/parse.ts';
import { refreshDelegated, refreshMetadata, type MetadataSource } from '../trust/repository-client.ts';
import { fetchBytes, fetchJson, wrongContent } from './fetch.ts';
import { isNewer, versionsOf, type MetadataRecord, type StoredMetadata } from './state.ts';

/** New roots that one cycle takes (TUF 1.0 §5.3.3 asks for a bound). */
const maxRoots = 256;
/** The online roles of one answer, JSON-escaped, and some roots. */
const tipCapBytes = 8_000_000;

/** Longest cycle, milliseconds: a server that sends a byte now and then keeps nobody (TUF: slow retrieval). */
const cycleMs = 120_000;

/** What a store says that takes nothing more. */
const noRoom: readonly ErrorCode[] = ['ERR_INLAY_STORE_FULL', 'ERR_INLAY_STORE_READ_ONLY'];

/** What a cycle works with. */
export interface RefreshOptions {
  readonly platform: Platform;
  readonly record: MetadataRecord;
  /** What was verified earlier in this process. */
  readonly known?: TrustedMetadata | undefined;
  readonly url: string;
  readonly root: Uint8Array;
  readonly signal: AbortSignal;
  readonly onBytes: (count: number) => void;
}

/**
 * Asks the server once and verifies its answer, plus `targets` if that changed. Whatever was verified is stored, even
 * if what comes after it fails (TUF 1.0 §5.3.8, §5.4.5, …).
 * @throws {@link TrustError}, {@link NetworkError} or {@link StoreError}.
 */
export async function refresh(options: RefreshOptions): Promise<TrustedMetadata> {
  const { platform, record, root } = options;
  const stored = await record.read();
  // Where it could not be written, this process knows more than the store.
  const known = options.known && storedForm(options.known, stored.etag);
  const metadata = known !== undefined && isNewer(known, stored) ? { ...known, etag: undefined } : stored;
  const trusted = await createTrustedMetadata({ platform, root, stored: metadata.texts });
  // Only a complete and unexpired set may be confirmed by a 304, which is no proof of freshness.
  let etag = isCurrent(trusted) ? metadata.etag : undefined;
  const { version } = trusted.root;
  const cycle = new AbortController();
  const stop = (): void => {
    abortWith(cycle, reasonOf(options.signal));
  };
  if (options.signal.aborted) stop();
  options.signal.addEventListener('abort', stop, { once: true });
  const cancel = platform.setTimer(() => {
    abortWith(cycle, tooSlow(options.url));
  }, cycleMs);
  let failure: { readonly error: unknown } | undefined;
  try {
    etag = await applyTip({ ...options, signal: cycle.signal }, trusted, etag);
  } catch (error) {
    failure = { error };
  } finally {
    cancel();
    options.signal.removeEventListener('abort', stop);
  }
  try {
    // Under another root the tip has another URL, to which this tag does not belong.
    await record.save(storedForm(trusted, trusted.root.version === version ? etag : undefined));
  } catch (error) {
    // What was verified counts, also where there is no room to remember it: it may withdraw what runs.
    if (!isInlayError(error) || !noRoom.includes(error.code)) throw error;
  }
  if (failure !== undefined) throw failure.error;
  return trusted;
}

/** @returns the tag of the answer that the set now stands for. */
async function applyTip(
  options: RefreshOptions,
  trusted: TrustedMetadata,
  etag: string | undefined,
): Promise<string | undefined> {
  const { platform, url, signal, onBytes } = options;
  const tipUrl = `${url}/v1/tip?root=${trusted.root.version}`;
  const answer = await fetchJson(platform, tipUrl, {
    capBytes: tipCapBytes,
    signal,
    ...(etag !== undefined && { headers: { 'if-none-match': etag } }),
  }).catch((error: unknown) => {
    if (isMissing(error)) return undefined;
    throw error;
  });
  if (answer === undefined) {
    await applyFiles(options, trusted);
    return undefined;
  }
  onBytes(answer.bytes.length);
  if (answer.status === 304) return etag;

  const tip = answer.json;
  if (!isTip(tip)) throw wrongContent(tipUrl, answer.bytes, 'a tip of metadata');
  for (const text of newRoots(tip.roots, trusted.root.version)) await trusted.updateRoot(toUtf8(text));
  await trusted.updateTimestamp(toUtf8(tip.timestamp));
  await trusted.updateSnapshot(toUtf8(tip.snapshot));
  if (!trusted.targets) {
    const { version, length = metadataCaps.targets } = trusted.snapshot?.meta['targets.json'] ?? {
      version: 0,
    };
    const targets = await fetchBytes(platform, `${url}/v1/metadata/${version}.targets.json`, {
      capBytes: Math.min(length, metadataCaps.targets),
      signal,
    });
    onBytes(targets.bytes.length);
    await trusted.updateTargets(targets.bytes);
  }
  if (tip.rollout !== undefined && !trusted.rollout) await trusted.updateRollout(toUtf8(tip.rollout));
  trusted.assertCurrent();
  return answer.etag;
}

/** A static host has a tip with all roots, since it cannot look at the query. */
function newRoots(roots: readonly string[], version: number): readonly string[] {
  const isNew = (text: string): boolean => parseEnvelope(toUtf8(text), 'root').signed.version > version;
  const from = roots.findIndex(isNew);
  return from === -1 ? [] : roots.slice(from, from + maxRoots);
}

/** Reads the metadata file by file, as any TUF repository has them, where there is no tip (TUF 1.0 §5). */
async function applyFiles(options: RefreshOptions, trusted: TrustedMetadata): Promise<void> {
  const { platform, url, signal, onBytes } = options;
  const source: MetadataSource = {
    fetchMetadata: async (name, capBytes) => {
      try {
        const { bytes } = await fetchBytes(platform, `${url}/v1/metadata/${name}`, { capBytes, signal });
        onBytes(bytes.length);
        return bytes;
      } catch (error) {
        if (isMissing(error)) return undefined;
        throw error;
      }
    },
  };
  await refreshMetadata(trusted, source);
  if (trusted.snapshot?.meta['rollout.json'] !== undefined)
    await refreshDelegated(trusted, source, 'targets', 'rollout');
  trusted.assertCurrent();
}

/** Some hosts forbid what they do not have. */
function isMissing(error: unknown): boolean {
  if (!isInlayError(error) || error.code !== 'ERR_INLAY_HTTP_STATUS') return false;
  const { status, serverCode } = error.details;
  return serverCode === undefined && (status === 404 || status === 403);
}

function tooSlow(url: string): NetworkError {
  return new NetworkError(
    'ERR_INLAY_NETWORK',
    `${url} takes more than ${cycleMs / 1000} s for its metadata; check the server and the network.`,
    { details: { url, retryable: false } },
  );
}

function isCurrent(trusted: TrustedMetadata): boolean {
  try {
    trusted.assertCurrent();
    return true;
  } catch {
    return false;
  }
}

function storedForm(trusted: TrustedMetadata, etag: string | undefined): StoredMetadata {
  return {
    ...versionsOf(trusted),
    texts: trusted.export(),
    ...(etag !== undefined && { etag }),
  };
}

interface Tip {
  readonly roots: readonly string[];
  readonly timestamp: string;
  readonly snapshot: string;
  readonly rollout?: string;
}

function isTip(value: unknown): value is Tip {
  return (
    isFields(value) &&
    Array.isArray(value['roots']) &&
    value['roots'].every((text) => typeof text === 'string') &&
    typeof value['timestamp'] === 'string' &&
    typeof value['snapshot'] === 'string' &&
    (value['rollout'] === undefined || typeof value['rollout'] === 'string')
  );
}
