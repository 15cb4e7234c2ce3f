import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { onTestFinished } from 'vitest';

/** What goes wrong with a request. */
export type S3Failure =
  /** The connection breaks before the server has done anything. */
  | 'cut'
  /** The server has done it, and its answer gets lost. */
  | 'lost'
  /** Half of the answer comes. */
  | 'half'
  | { readonly status: number; readonly code: string; readonly headers?: Readonly<Record<string, string>> }
  /** Status 200 with an error inside, as it may come for `CompleteMultipartUpload`. */
  | 'ok-error';

/** A bucket in memory that fails when it is told to. Not for anything that `radosgw` can show. */
export interface FakeS3 {
  readonly env: Readonly<Record<string, string>>;
  /** `METHOD what` of every request, `what` being `object`, `uploads`, `part`, `complete`, `abort` or `list`. */
  readonly requests: string[];
  readonly objects: Map<string, Buffer>;
  readonly uploads: Map<string, Map<number, Buffer>>;
  /** Decides by the request and how many of its kind there were before. */
  fail: (request: string, before: number) => S3Failure | undefined;
}

export async function startFakeS3(): Promise<FakeS3> {
  const fake: FakeS3 = {
    env: {},
    requests: [],
    objects: new Map(),
    uploads: new Map(),
    fail: () => undefined,
  };
  const server = createServer((request, response) => {
    void handle(fake, request, response);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return Object.assign(fake, {
    env: {
      INLAY_S3_ENDPOINT: `http://127.0.0.1:${port}`,
      INLAY_S3_BUCKET: 'bucket',
      INLAY_S3_ACCESS_KEY_ID: 'key',
      INLAY_S3_SECRET_ACCESS_KEY: 'secret',
    },
  });
}

async function handle(fake: FakeS3, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = new URL(request.url ?? '', 'http://fake');
  const what = kindOf(request.method, url);
  const name = `${request.method} ${what}`;
  const failure = fake.fail(name, fake.requests.filter((earlier) => earlier === name).length);
  fake.requests.push(name);
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  const body = Buffer.concat(chunks);
  if (failure === 'cut') {
    request.socket.destroy();
    return;
  }
  if (typeof failure === 'object') {
    response.writeHead(failure.status, failure.headers).end(`<Error><Code>${failure.code}</Code></Error>`);
    return;
  }
  if (failure === 'ok-error') {
    response.writeHead(200).end('<Error><Code>InternalError</Code></Error>');
    return;
  }
  const { status, headers = {}, content = Buffer.alloc(0) } = answer(fake, what, request, url, body);
  if (failure === 'lost') {
    request.socket.destroy();
  } else if (failure === 'half') {
    response.writeHead(status, { ...headers, 'content-length': content.length });
    response.write(content.subarray(0, content.length >> 1), () => request.socket.destroy());
  } else {
    response.writeHead(status, { 'content-length': content.length, ...headers });
    response.end(request.method === 'HEAD' ? undefined : content);
  }
}

function kindOf(method: string | undefined, url: URL): string {
  if (url.searchParams.has('uploads')) return 'uploads';
  if (url.searchParams.has('partNumber')) return 'part';
  if (url.searchParams.has('uploadId')) return method === 'DELETE' ? 'abort' : 'complete';
  return url.searchParams.has('list-type') ? 'list' : 'object';
}

interface Answer {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string | number>>;
  readonly content?: Buffer;
}

function answer(fake: FakeS3, what: string, request: IncomingMessage, url: URL, body: Buffer): Answer {
  const error = (status: number, code: string): Answer => ({
    status,
    content: Buffer.from(`<Error><Code>${code}</Code></Error>`),
  });
  const sha256 = createHash('sha256').update(body).digest('hex');
  if (!request.headers.authorization?.startsWith('AWS4-HMAC-SHA256 Credential=key/')) {
    return error(403, 'AccessDenied');
  }
  if (request.headers['x-amz-content-sha256'] !== sha256) return error(400, 'XAmzContentSHA256Mismatch');
  if (request.headers['transfer-encoding'] !== undefined) return error(411, 'MissingContentLength');
  const key = url.pathname.replace(/^\/bucket\/?/, '');
  const uploadId = url.searchParams.get('uploadId') ?? '';
  const parts = fake.uploads.get(uploadId);
  const xml = (text: string): Answer => ({ status: 200, content: Buffer.from(text) });
  if (what === 'uploads' && request.method === 'GET') {
    const uploads = [...fake.uploads.keys()].map(
      (id) =>
        `<Upload><Key>${id.slice(2)}</Key><UploadId>${id}</UploadId><Initiated>2020-01-01T00:00:00Z</Initiated></Upload>`,
    );
    return xml(`<ListMultipartUploadsResult>${uploads.join('')}</ListMultipartUploadsResult>`);
  }
  if (what === 'uploads') {
    const id = `u-${key}`;
    fake.uploads.set(id, new Map());
    return xml(`<InitiateMultipartUploadResult><UploadId>${id}</UploadId></InitiateMultipartUploadResult>`);
  }
  if (what === 'part' && parts) {
    parts.set(Number(url.searchParams.get('partNumber')), body);
    return { status: 200, headers: { etag: `"${sha256}"` } };
  }
  if (what === 'complete' && parts) {
    fake.objects.set(key, Buffer.concat([...parts].sort(([a], [b]) => a - b).map(([, part]) => part)));
    fake.uploads.delete(uploadId);
    return xml('<CompleteMultipartUploadResult></CompleteMultipartUploadResult>');
  }
  if (what === 'abort' && parts) {
    fake.uploads.delete(uploadId);
    return { status: 204 };
  }
  if (what === 'list') return xml(listPage(fake, url));
  if (request.method === 'PUT' && what === 'object') {
    if (request.headers['if-none-match'] === '*' && fake.objects.has(key)) {
      return error(412, 'PreconditionFailed');
    }
    fake.objects.set(key, body);
    return { status: 200 };
  }
  const object = fake.objects.get(key);
  if (what !== 'object' || !object) return error(404, what === 'object' ? 'NoSuchKey' : 'NoSuchUpload');
  const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '') ?? [];
  if (from === undefined) return { status: 200, content: object };
  return {
    status: 206,
    headers: { 'content-range': `bytes ${from}-${to}/${object.length}` },
    content: object.subarray(Number(from), Number(to) + 1),
  };
}

/** Two objects a page; tokens have what XML and URLs have to escape. */
function listPage(fake: FakeS3, url: URL): string {
  const after = (url.searchParams.get('continuation-token') ?? '').replace('a&=+ ', '');
  const keys = [...fake.objects.keys()].sort().filter((key) => key > after);
  const page = keys.slice(0, 2);
  const contents = page.map(
    (key) => `<Contents><Key>${key}</Key><Size>${fake.objects.get(key)?.length}</Size></Contents>`,
  );
  const next = keys.length > 2 ? `<NextContinuationToken>a&amp;=+ ${page[1]}</NextContinuationToken>` : '';
  return `<ListBucketResult>${contents.join('')}${next}</ListBucketResult>`;
}
