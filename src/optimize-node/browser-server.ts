/** The page that a browser runs models in, and the way to ask it. */

import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createReadStream } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { BackendError, isInlayError } from '../core/errors.ts';
import { packMessage, servePage, unpackMessage, type PageSettings } from './browser-page.ts';

/** What {@link openPageServer} takes. */
export interface PageServerOptions {
  /** Folder of the library's files. */
  readonly library: string;
  /** The one of them that the page imports. */
  readonly bundle: string;
  readonly settings: Omit<PageSettings, 'query'>;
  /** Longest time, milliseconds, for one answer. */
  readonly answerMs: number;
}

/** A page that waits for questions. */
export interface PageServer {
  /** Address of the page; who knows it can ask and answer. */
  readonly url: string;
  /** Waits for the page to say that it is there. */
  hello(withinMs: number): Promise<unknown>;
  /** @throws an `Error` with what the page threw; {@link BackendError} `ERR_INLAY_WORKER_LOST` if it is gone or late. */
  ask(verb: string, body: object): Promise<unknown>;
  /** Says that the browser ended, and how. */
  lose(how: string): void;
  close(): Promise<void>;
}

const FILE = /^\/library\/([\w.-]+\.(mjs|wasm))$/;
const TYPES: Readonly<Record<string, string>> = { mjs: 'text/javascript', wasm: 'application/wasm' };
/** What makes a page cross-origin isolated, which gives it threads and a finer clock. */
const HEADERS = {
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-embedder-policy': 'require-corp',
  'cross-origin-resource-policy': 'same-origin',
  'cache-control': 'no-store',
};

interface Waiter {
  done(result: unknown): void;
  fail(error: unknown): void;
}

/** Serves the page on this machine only, at a port that is free. */
export async function openPageServer(options: PageServerOptions): Promise<PageServer> {
  const { library, bundle, settings, answerMs } = options;
  const query = `?${randomBytes(16).toString('hex')}`;
  const page = pageFor(bundle, { ...settings, query });
  const waiting = new Map<number, Waiter>();
  const questions: Uint8Array[] = [];
  let poll: ServerResponse | undefined;
  let lost: BackendError | undefined;
  let lastId = 0;

  const lose = (how: string): void => {
    lost ??= new BackendError(
      'ERR_INLAY_WORKER_LOST',
      `The page that had the model is gone: ${how}; open the runtime again.`,
      { details: { how } },
    );
    for (const { fail } of waiting.values()) fail(lost);
    waiting.clear();
  };
  const expect = (id: number, withinMs: number): Promise<unknown> =>
    new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        lose(`no answer within ${withinMs} ms`);
      }, withinMs);
      const settled = (): void => {
        clearTimeout(timer);
        waiting.delete(id);
      };
      waiting.set(id, {
        done: (result) => {
          settled();
          resolve(result);
        },
        fail: (error) => {
          settled();
          reject(error);
        },
      });
    });
  const hand = (): void => {
    if (poll === undefined || questions.length === 0) return;
    poll.writeHead(200, HEADERS).end(questions.shift());
    poll = undefined;
  };
  const hear = (bytes: Uint8Array): void => {
    const { id, result, error } = unpackMessage(bytes) as {
      readonly id: number;
      readonly result?: unknown;
      readonly error?: { readonly name: string; readonly message: string };
    };
    if (error === undefined) waiting.get(id)?.done(result);
    else waiting.get(id)?.fail(Object.assign(new Error(error.message), { name: error.name }));
  };

  const respond = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const { pathname, search } = new URL(request.url ?? '/', 'http://localhost');
    const [, file, extension = ''] = FILE.exec(pathname) ?? [];
    if (file !== undefined) {
      response.writeHead(200, { ...HEADERS, 'content-type': TYPES[extension] });
      createReadStream(join(library, file))
        .on('error', () => response.destroy())
        .pipe(response);
      return;
    }
    const isKnown = search === query && request.headers.host === host;
    if (isKnown && pathname === '/') {
      response.writeHead(200, { ...HEADERS, 'content-type': 'text/html' }).end(page);
    } else if (isKnown && pathname === '/question') {
      poll = response;
      hand();
    } else if (isKnown && pathname === '/answer') {
      const chunks: Uint8Array[] = [];
      for await (const chunk of request) chunks.push(chunk as Uint8Array);
      response.writeHead(204, HEADERS).end();
      hear(Buffer.concat(chunks));
    } else if (isKnown && pathname === '/alive') {
      response.writeHead(200, HEADERS).write(' ');
      response.on('close', () => {
        lose('the page crashed or the browser ended');
      });
    } else {
      response.writeHead(404, HEADERS).end();
    }
  };
  const server = createServer((request, response) => {
    respond(request, response).catch(() => response.destroy());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const host = `127.0.0.1:${(server.address() as AddressInfo).port}`;

  return {
    url: `http://${host}/${query}`,
    hello: async (withinMs) => {
      try {
        if (lost !== undefined) throw lost;
        return await expect(0, withinMs);
      } catch (cause) {
        const how = isInlayError(cause) ? cause.details['how'] : cause;
        throw new BackendError(
          'ERR_INLAY_BACKEND_UNAVAILABLE',
          `The browser does not open its page: ${String(how)}; try another browser, or give it more time.`,
          { cause },
        );
      }
    },
    ask: (verb, body) => {
      if (lost !== undefined) return Promise.reject(lost);
      lastId += 1;
      const answered = expect(lastId, answerMs);
      questions.push(packMessage({ id: lastId, verb, body }));
      hand();
      return answered;
    },
    lose,
    close: async () => {
      lose('it was closed');
      server.close();
      server.closeAllConnections();
      await once(server, 'close');
    },
  };
}

/** The page: the library, and the functions that answer, as text. */
function pageFor(bundle: string, settings: PageSettings): string {
  const script = [
    `import * as ort from '/library/${bundle}';`,
    `(${String(servePage)})(ort, ${JSON.stringify(settings)}, ${String(packMessage)}, ${String(unpackMessage)});`,
  ].join('\n');
  return `<!doctype html><meta charset="utf-8"><title>Inlay</title><script type="module">\n${script}\n</script>\n`;
}
