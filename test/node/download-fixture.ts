/** A file server that can be told to misbehave, and what the tests of downloads share. */
import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Platform } from '../../src/core/platform.ts';
import { nodePlatform } from '../../src/platform-node.ts';
import type { Chunks } from '../../src/update/chunks.ts';
import type { FileRef } from '../../src/update/manifest.ts';

/** Lower-case hex. */
export const sha256Of = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

/** Bytes that no two places have in common. */
export function randomBytes(length: number, seed = 1): Uint8Array<ArrayBuffer> {
  let state = seed;
  return Uint8Array.from({ length }, () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state >>> 24;
  });
}

/** Names a file as signed metadata does, and hashes its pieces. */
export function describe(
  bytes: Uint8Array,
  size: number,
  path = 'models/digits/1/model.onnx',
): { readonly target: FileRef; readonly chunks: Required<Chunks> } {
  let sha256 = '';
  for (let at = 0; at < bytes.length; at += size) sha256 += sha256Of(bytes.subarray(at, at + size));
  return { target: { path, sha256: sha256Of(bytes), length: bytes.length }, chunks: { size, sha256 } };
}

/** A request, as the server saw it. */
export interface Seen {
  readonly path: string;
  readonly range: string | undefined;
  readonly ifRange: string | undefined;
  /** Bytes of the body that were handed to the connection. */
  sent: number;
}

/** One answer: `range` is what a good server would send now. */
export interface Turn {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** How many requests came before. */
  readonly number: number;
  readonly seen: Seen;
  /** Answers as a good server, optionally with a body that ends early, or other bytes. */
  serve(options?: { bytes?: Uint8Array; etag?: string; only?: number; ends?: 'reset' | 'stall' }): void;
}

/** A server on loopback. */
export interface FaultServer {
  readonly url: string;
  readonly seen: readonly Seen[];
  /** Bytes of all bodies. */
  sent(): number;
  close(): Promise<void>;
}

/** Starts a server that has one file, and answers by `answer`. */
export async function startServer(
  content: Uint8Array,
  answer: (turn: Turn) => void = ({ serve }) => serve(),
): Promise<FaultServer> {
  const seen: Seen[] = [];
  const server = createServer((request, response) => {
    const entry: Seen = {
      path: request.url ?? '',
      range: request.headers.range,
      ifRange: request.headers['if-range'] as string | undefined,
      sent: 0,
    };
    seen.push(entry);
    const serve: Turn['serve'] = ({ bytes = content, etag = '"one"', only = Infinity, ends } = {}) => {
      const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(entry.range ?? '') ?? [];
      const isPart = first !== undefined && (entry.ifRange === undefined || entry.ifRange === etag);
      const from = isPart ? Number(first) : 0;
      const to = isPart ? Math.min(Number(last) + 1, bytes.length) : bytes.length;
      response.writeHead(isPart ? 206 : 200, {
        'content-type': 'application/octet-stream',
        'content-length': to - from,
        etag,
        ...(isPart && { 'content-range': `bytes ${from}-${to - 1}/${bytes.length}` }),
      });
      const body = bytes.subarray(from, Math.min(to, from + only));
      entry.sent = body.length;
      if (from + only >= to) response.end(body);
      else
        response.write(body, () => {
          if (ends !== 'stall') response.destroy();
        });
    };
    answer({ request, response, number: seen.length - 1, seen: entry, serve });
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen,
    sent: () => seen.reduce((sum, { sent }) => sum + sent, 0),
    close: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => {
        server.close(resolve);
      });
    },
  };
}

/** The platform of Node that does not wait between attempts, and loses patience only when it is told to. */
export interface HastyPlatform extends Platform {
  /** How long it would have waited, milliseconds. */
  readonly waits: readonly number[];
  /** Ends the wait for a silent server. */
  expire(): void;
}

/** Creates such a platform. */
export function hastyPlatform(): HastyPlatform {
  const platform = nodePlatform();
  const waits: number[] = [];
  const patience = new Set<() => void>();
  return {
    ...platform,
    waits,
    expire: () => {
      for (const task of [...patience]) task();
    },
    setTimer: (task, delayMs, keepAlive) => {
      if (keepAlive === true) {
        waits.push(delayMs);
        return platform.setTimer(task, 0, true);
      }
      patience.add(task);
      return () => {
        patience.delete(task);
      };
    },
  };
}
