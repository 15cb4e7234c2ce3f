import { toHex } from './core/bytes.ts';
import { createPace, updateInTurns } from './core/digest.ts';
import { createSha256, type Hasher } from './core/hash.ts';
import type { FetchInit, FileAccess, Platform } from './core/platform.ts';
import { createEd25519, type SubtleVerifier } from './ed25519.ts';
import { LONGEST_MS } from './platform.ts';
import { createSignatures, type SubtleSignatures } from './signatures.ts';
import { toAppFiles, type AppFiles, type FileLibrary } from './stores/react-native-files.ts';
import { toPath } from './stores/react-native-path.ts';

/**
 * What a crypto library offers: `expo-crypto` and `react-native-quick-crypto` fit as they are. React Native itself has
 * no cryptography; what is missing here is looked for in the global `crypto`, and done in JavaScript where that is
 * possible.
 */
export interface NativeCrypto {
  getRandomValues?(array: Uint8Array): unknown;
  /** Hashes natively: `algorithm` is `SHA-256`. */
  digest?(algorithm: string, bytes: Uint8Array<ArrayBuffer>): Promise<ArrayBuffer>;
  /** Hashes in pieces: `algorithm` is `sha256`. */
  createHash?(algorithm: string): {
    update(bytes: Uint8Array): unknown;
    digest(): Uint8Array;
  };
  readonly subtle?: unknown;
}

/** The part of React Native's `AppState` that is used. */
export interface AppState {
  /** `active`, `background`, `inactive` or, before it is known, `unknown`. */
  readonly currentState: string | null;
  addEventListener(type: 'change', listener: (state: string) => void): { remove(): void };
}

/** Options of {@link reactNativePlatform}. */
export interface ReactNativePlatformOptions {
  /** The module `expo-file-system` with its `File` class, or `react-native-fs`: models are then loaded by their path. */
  readonly files?: FileLibrary;
  /** The module `expo-crypto` or `react-native-quick-crypto`. Default: the global `crypto`, where an app has set one. */
  readonly crypto?: NativeCrypto;
  /**
   * `AppState` of `react-native`: polls rest while the app is in the background, and an app that is ended there does not
   * count as crashed. Default: neither.
   */
  readonly appState?: AppState;
  /**
   * Whether bytes cost money, power comes from the mains, and nobody uses the device now, which React Native itself does
   * not tell; called before each download, so keep what `@react-native-community/netinfo` or `expo-battery` last said in
   * a variable. Default: downloads that wait for any of this do not wait.
   */
  readonly conditions?: NonNullable<Platform['conditions']>;
  /**
   * What rollouts may ask for: `{ os: Platform.OS }` with `Platform` of `react-native`, and `arch`, `memoryMiB` and
   * `locale` of `expo-device` and `expo-localization`. Default: rules that ask for them do not hold.
   */
  readonly traits?: NonNullable<Platform['traits']>;
  /**
   * The Fetch API. Default: requests through `XMLHttpRequest`, which gives binary bodies in every version and leaves the
   * URL alone. `fetch` of `expo/fetch` streams: large models then never lie in memory whole. One
   * that resolves only with the whole body, as React Native's own does, has to call `init.onActivity` meanwhile: what
   * takes longer than the longest silence fails otherwise.
   */
  readonly fetch?: (url: string, init?: FetchInit) => Promise<Response>;
}

/** What of the global scope is used; each may be missing. */
interface NativeGlobals {
  readonly crypto?: NativeCrypto;
  readonly performance?: { now(): number };
  readonly setImmediate?: (task: () => void) => unknown;
  readonly XMLHttpRequest?: new () => XMLHttpRequest;
  readonly fetch?: Platform['fetch'];
}

/** The platform of React Native, with what the app brings along. */
export function reactNativePlatform(options: ReactNativePlatformOptions = {}): Platform {
  const { performance, setImmediate, crypto: globalCrypto } = globalThis as NativeGlobals;
  const { appState, conditions, traits } = options;
  const crypto = options.crypto ?? globalCrypto ?? {};
  const hash = (): Hasher => createHasher(crypto);
  const settled = Promise.resolve();
  const verifyEd25519 = createEd25519(crypto.subtle as SubtleVerifier | undefined);
  return {
    runtime: 'react-native',
    ...(traits && { traits }),
    ...(conditions && { conditions }),
    now: () => Date.now(),
    monotonicMs: performance ? () => performance.now() : () => Date.now(),
    setTimer: (task, delayMs) => {
      const timer = setTimeout(task, Math.min(delayMs, LONGEST_MS));
      return () => {
        clearTimeout(timer);
      };
    },
    defer: (task) => {
      // The reactions that are due are before this one in the queue, and what they add may come later.
      if (setImmediate) setImmediate(task);
      else void settled.then(task);
    },
    random: () => Math.random(),
    randomBytes: (length) => randomBytes(options.crypto, globalCrypto, length),
    createSha256: hash,
    ...digestOf(crypto),
    verifyEd25519,
    verifySignature: createSignatures(crypto.subtle as SubtleSignatures | undefined, verifyEd25519),
    ...(appState && {
      // What is not known to be in the background is in the foreground.
      isActive: () => appState.currentState !== 'background',
      onActive: (listener) => listen(appState, (state) => state === 'active', listener),
      // iOS says `inactive` when people are about to swipe an app away.
      onHide: (listener) => listen(appState, (state) => state !== 'active', listener),
    }),
    fetch: options.fetch ?? defaultFetch(),
    ...(options.files && { files: fileAccess(toAppFiles(options.files), hash) }),
  };
}

/** @returns unsubscribes. */
function listen(appState: AppState, matches: (state: string) => boolean, listener: () => void): () => void {
  const subscription = appState.addEventListener('change', (state) => {
    if (matches(state)) listener();
  });
  return () => {
    subscription.remove();
  };
}

function createHasher(crypto: NativeCrypto): Hasher {
  const native = crypto.createHash?.('sha256');
  if (native === undefined) return createSha256();
  return {
    update: (bytes) => {
      native.update(bytes);
    },
    digest: () => new Uint8Array(native.digest()),
  };
}

function digestOf(crypto: NativeCrypto): Pick<Platform, 'digest'> {
  const owner = crypto.digest ? crypto : (crypto.subtle as NativeCrypto | undefined);
  const digest = owner?.digest?.bind(owner);
  if (digest === undefined) return {};
  // There is no shared memory here.
  return {
    digest: async (bytes) => new Uint8Array(await digest('SHA-256', bytes as Uint8Array<ArrayBuffer>)),
  };
}

function randomBytes(
  own: NativeCrypto | undefined,
  shared: NativeCrypto | undefined,
  length: number,
): Uint8Array<ArrayBuffer> {
  const source = [own, shared].find((crypto) => crypto?.getRandomValues !== undefined);
  if (!source) {
    throw new TypeError(
      'There is no source of random numbers here: give createInlay `crypto` from "expo-crypto", or import "react-native-get-random-values" first.',
    );
  }
  const bytes = new Uint8Array(length);
  source.getRandomValues?.(bytes);
  return bytes;
}

function fileAccess(files: AppFiles, createHash: () => Hasher): FileAccess {
  return {
    // Paths of the app's own code are relative to its documents, as everywhere in these libraries.
    resolve: (path) => {
      const location = toPath(String(path));
      return location.startsWith('/') ? location : `${files.documents}/${location}`;
    },
    size: async (path) => (await files.stat(path))?.sizeBytes,
    stamp: async (path) => {
      const facts = await files.stat(path);
      return facts && `${facts.sizeBytes} ${facts.modifiedAt}`;
    },
    read: async (path) => {
      const { sizeBytes = 0 } = (await files.stat(path)) ?? {};
      const bytes = new Uint8Array(sizeBytes);
      for (let at = 0; at < sizeBytes; at += files.pieceBytes) {
        bytes.set(await files.read(path, at, Math.min(files.pieceBytes, sizeBytes - at)), at);
      }
      return bytes;
    },
    sha256: async (path) => {
      if (files.sha256) return files.sha256(path);
      const { sizeBytes = 0 } = (await files.stat(path)) ?? {};
      const hash = createHash();
      const pace = createPace(() => Date.now(), pause);
      for (let at = 0; at < sizeBytes; at += files.pieceBytes) {
        const piece = await files.read(path, at, Math.min(files.pieceBytes, sizeBytes - at));
        await updateInTurns(hash, piece, pace);
      }
      return toHex(hash.digest());
    },
  };
}

function pause(): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, 0);
  });
}

function defaultFetch(): Platform['fetch'] {
  const { XMLHttpRequest, fetch } = globalThis as NativeGlobals;
  if (XMLHttpRequest) return (url, init) => request(new XMLHttpRequest(), url, init);
  return (url, init) => (fetch ? fetch(url, init) : Promise.reject(new Error('There is no fetch here.')));
}

/**
 * Sends a request. React Native's own `fetch` adds a query to URLs that must not be cached, and reads binary bodies
 * through Blob and base64, where it can at all.
 */
function request(xhr: XMLHttpRequest, url: string, init: FetchInit = {}): Promise<Response> {
  return new Promise((resolve, reject) => {
    const { signal, onActivity } = init;
    const abort = (): void => {
      xhr.abort();
      reject(new Error('The request was given up.'));
    };
    const settle = (): void => signal?.removeEventListener('abort', abort);
    xhr.open(init.method ?? 'GET', url);
    xhr.responseType = 'arraybuffer';
    xhr.withCredentials = false;
    for (const [name, value] of Object.entries(init.headers ?? {})) xhr.setRequestHeader(name, String(value));
    xhr.onerror = () => {
      settle();
      reject(new Error('The network request failed.'));
    };
    xhr.onload = () => {
      settle();
      const { status } = xhr;
      const hasBody = status !== 204 && status !== 304;
      const headers = toHeaders(xhr.getAllResponseHeaders());
      resolve(new Response(hasBody ? (xhr.response as ArrayBuffer | null) : null, { status, headers }));
    };
    if (onActivity) {
      xhr.onprogress = ({ loaded }) => {
        onActivity(loaded);
      };
    }
    if (signal?.aborted) {
      abort();
      return;
    }
    signal?.addEventListener('abort', abort);
    xhr.send((init.body ?? null) as XMLHttpRequestBodyInit | null);
  });
}

function toHeaders(lines: string): Headers {
  const headers = new Headers();
  for (const line of lines.split('\n')) {
    const colon = line.indexOf(':');
    if (colon > 0) headers.append(line.slice(0, colon).trim(), line.slice(colon + 1).trim());
  }
  return headers;
}
