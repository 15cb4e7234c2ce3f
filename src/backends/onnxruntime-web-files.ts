/** Finds out what was served in place of the library's own files, after it failed to start with them. */
import { toAbsolute } from '../core/absolute.ts';

/** Where the library finds its WebAssembly files: a prefix, or one URL each. */
export type WasmPaths = string | { readonly mjs?: string | URL; readonly wasm?: string | URL };

/** What is wrong with a file, in words and as facts. */
export interface FileFault {
  /** Completes "does not start here: …". */
  readonly text: string;
  readonly details: Readonly<Record<string, unknown>>;
}

/** Milliseconds that one file may take to answer. */
const ANSWER_MS = 10_000;
/** WebAssembly Core 2.0 §5.5.16: every module begins with these bytes. */
const MAGIC = [0x00, 0x61, 0x73, 0x6d];
const SHOWN_BYTES = 16;

/** Addresses that something fetched. */
export interface Fetched<T> {
  readonly result: Promise<T>;
  readonly urls: readonly string[];
}

/**
 * Takes note of what is fetched during some work. Bundlers give the library's files names of their own, and of a
 * request that failed nothing else tells the address.
 */
export function noteFetches<T>(work: () => Promise<T>): Fetched<T> {
  const original = globalThis.fetch;
  const urls: string[] = [];
  const noting: typeof fetch = (input, init) => {
    urls.push(input instanceof Request ? input.url : toAbsolute(input, globalThis));
    return original(input, init);
  };
  // Reflect, because a runtime may have made it immutable; then nothing is noted.
  Reflect.set(globalThis, 'fetch', noting);
  const result = work().finally(() => {
    // Somebody else may have replaced it meanwhile.
    if (globalThis.fetch === noting) globalThis.fetch = original;
  });
  return { result, urls };
}

/**
 * Fetches the files that the library may have started from, and tells what is wrong with the first faulty one.
 * @param reason - what the library said.
 * @param wasmPaths - where it was told to look.
 * @param fetched - what was fetched when it started, other files included.
 * @returns `undefined` when no file can be found guilty.
 */
export async function findFaultyFile(
  reason: string,
  wasmPaths: WasmPaths | undefined,
  fetched: readonly string[],
): Promise<FileFault | undefined> {
  for (const url of suspects(reason, wasmPaths, fetched)) {
    const fault = await examine(url, reason);
    if (fault !== undefined) return fault;
  }
  return undefined;
}

/** What is wrong with a WebAssembly binary that was passed in. */
export function faultOfBinary(binary: ArrayBufferLike | Uint8Array): FileFault | undefined {
  const bytes = ArrayBuffer.isView(binary) ? binary : new Uint8Array(binary);
  if (isWasm(bytes)) return undefined;
  return {
    text: `the wasmBinary of ${bytes.length} bytes begins with ${formatHead(bytes)} instead of 00 61 73 6d`,
    details: { sizeBytes: bytes.length },
  };
}

/** URLs that the library named, those that it was given, and those that it fetched. */
function suspects(
  reason: string,
  wasmPaths: WasmPaths | undefined,
  fetched: readonly string[],
): ReadonlySet<string> {
  const named = reason.match(/\b(?:[a-z][a-z+.-]*:\/\/|blob:|data:)[^\s'"<>]+/gi) ?? [];
  const { mjs, wasm } = typeof wasmPaths === 'object' ? wasmPaths : {};
  const given = [mjs, wasm].filter((path) => path !== undefined).map((path) => toAbsolute(path, globalThis));
  const binaries = fetched.filter((url) => /\.wasm\b/.test(url));
  const all = [...named.map((url) => url.replace(/[.,;)\]]+$/, '')), ...given, ...binaries];
  // Files on disk are not fetched.
  return new Set(all.filter((url) => !url.startsWith('file:')));
}

async function examine(url: string, reason: string): Promise<FileFault | undefined> {
  const shown = withoutSecrets(url);
  let response: Response;
  let head: Uint8Array;
  let sizeBytes: number;
  try {
    response = await fetch(url, { credentials: 'same-origin', signal: AbortSignal.timeout(ANSWER_MS) });
    ({ head, sizeBytes } = await readHead(response));
  } catch (error) {
    return { text: `${shown} cannot be fetched (${String(error)})`, details: { url: shown } };
  }
  const { status, ok } = response;
  const contentType = response.headers.get('content-type') ?? '';
  const fault = (text: string): FileFault => ({
    text: `${shown} ${text}`,
    details: { url: shown, status, contentType, sizeBytes },
  });
  if (!ok) return fault(`answers with HTTP ${status} and begins with ${formatHead(head)}`);
  if (isScript(url, contentType)) {
    return /javascript|ecmascript/i.test(contentType)
      ? undefined
      : fault(`is served as "${contentType}" instead of text/javascript and begins with ${formatHead(head)}`);
  }
  if (!isWasm(head)) return fault(`begins with ${formatHead(head)} instead of 00 61 73 6d`);
  if (/LinkError|import/i.test(reason)) return fault('is of another version than the library');
  if (/CompileError|end of|extends past/i.test(reason)) {
    return fault(`begins with ${formatHead(head)}, but its ${sizeBytes} bytes do not compile`);
  }
  return undefined;
}

function isScript(url: string, contentType: string): boolean {
  return /\.m?js([?#]|$)/.test(url) || /javascript/i.test(contentType);
}

/** The first bytes of a body, and how many there are in all; nothing else is kept. */
async function readHead(response: Response): Promise<{ head: Uint8Array; sizeBytes: number }> {
  const head: number[] = [];
  let sizeBytes = 0;
  const reader = response.body?.getReader();
  for (let part = await reader?.read(); part?.value !== undefined; part = await reader?.read()) {
    head.push(...part.value.subarray(0, SHOWN_BYTES - head.length));
    sizeBytes += part.value.length;
  }
  return { head: Uint8Array.from(head), sizeBytes };
}

function isWasm(bytes: Uint8Array): boolean {
  return MAGIC.every((byte, index) => bytes[index] === byte);
}

/** Bytes as hex and as text: `3c 21 64 6f "<!do"`. */
function formatHead(bytes: Uint8Array): string {
  const head = Array.from(bytes.subarray(0, SHOWN_BYTES));
  if (head.length === 0) return 'nothing';
  const hex = head.map((byte) => byte.toString(16).padStart(2, '0')).join(' ');
  const text = head.map((byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '.')).join('');
  return `${hex} "${text}"`;
}

/** Queries may carry keys, and a data URL carries the file itself. */
function withoutSecrets(url: string): string {
  return url.startsWith('data:') ? url.slice(0, 40) : url.replace(/[?#].*$/, '');
}
