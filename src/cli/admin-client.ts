/** The admin plane of a sync server, as calls. */

import { fromErrorRecord, InlayError, NetworkError, ServerError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import type { ReleaseServer } from '../publish/publisher.ts';
import type { NamedKey } from '../trust/keys.ts';
import type { RolloutAction } from '../publish/rollout.ts';
import type { SignedPlan } from '../update/plan.ts';
import type { AuditAnswer } from '../server/api/answers.ts';
import type { AuditRecord } from '../server/db/repository.ts';
import type { ChangeOptions } from '../server/catalog.ts';
import type { RolloutBody } from '../server/rollout-body.ts';
import type { ServerStatus } from '../server/status.ts';

/** Calls to one server. All throw {@link NetworkError}, or what the server answers as {@link ServerError}. */
export interface AdminClient extends ReleaseServer {
  onlineKey(): Promise<NamedKey>;
  /** Calls a route below `/v1/admin/` that answers with JSON. @param body sent as JSON. */
  ask<Answer>(path: string, method?: 'GET' | 'POST' | 'PUT' | 'DELETE', body?: unknown): Promise<Answer>;
  status(): Promise<ServerStatus>;
  audit(): Promise<readonly AuditRecord[]>;
  putRoot(bytes: Uint8Array<ArrayBuffer>): Promise<void>;
  /** Reads the plan of a model, and what was done to it, newest first. */
  rollout(channel: string, model: string): Promise<{ plan: SignedPlan; records: readonly AuditRecord[] }>;
  setRollout(channel: string, model: string, body: RolloutBody): Promise<SignedPlan>;
  changeRollout(
    channel: string,
    model: string,
    action: RolloutAction,
    body: ChangeOptions,
  ): Promise<SignedPlan>;
}

/** Options of {@link createAdminClient}. */
export interface AdminClientOptions {
  /** Such as `http://127.0.0.1:8787`. */
  readonly server: string;
  readonly token: string | undefined;
  readonly platform: Pick<Platform, 'fetch'>;
}

/** Creates the client. Nothing is sent yet. @throws `TypeError` if the URL or the token cannot be one. */
export function createAdminClient(options: AdminClientOptions): AdminClient {
  const { server, token, platform } = options;
  if (!/^https?:\/\//.test(server)) {
    throw new TypeError(`The server ${server} is not a URL; write it like http://127.0.0.1:8787.`);
  }
  if (token !== undefined && !/^[!-~]+$/.test(token)) {
    throw new TypeError('The admin token has characters that no token has; copy it again.');
  }
  const base = server.replace(/\/+$/, '');

  const send = async (path: string, init: RequestInit = {}): Promise<Response> => {
    const headers: Record<string, string> = {};
    if (path.startsWith('/v1/admin/')) {
      if (token === undefined) {
        throw new ServerError(
          'ERR_INLAY_UNAUTHORIZED',
          'This command needs an API key; pass --token, or set INLAY_TOKEN.',
        );
      }
      headers['Authorization'] = `Bearer ${token}`;
    }
    let response: Response;
    try {
      response = await platform.fetch(`${base}${path}`, { ...init, headers });
    } catch (cause) {
      throw new NetworkError(
        'ERR_INLAY_NETWORK',
        `The server ${base} cannot be reached; start it with \`inlay server\`, or pass its URL with --server.`,
        { cause },
      );
    }
    if (!response.ok) throw await errorOf(response, base);
    return response;
  };
  const get = async <Body>(path: string, init?: RequestInit): Promise<Body> => {
    const response = await send(path, init);
    try {
      return (await response.json()) as Body;
    } catch (cause) {
      throw new NetworkError('ERR_INLAY_HTTP_CONTENT', `The answer of ${base} is no JSON; check the URL.`, {
        cause,
      });
    }
  };
  const put = async (path: string, body: Uint8Array<ArrayBuffer> | string): Promise<Response> =>
    send(path, { method: 'PUT', body });

  const ask = <Answer>(path: string, method = 'GET', body?: unknown): Promise<Answer> =>
    get(`/v1/admin/${path}`, { method, ...(body !== undefined && { body: JSON.stringify(body) }) });

  return {
    ask,
    onlineKey: () => get('/v1/online-key'),
    tip: (root) => get(`/v1/tip?root=${root}`),
    text: async (path) => new Uint8Array(await (await send(path)).arrayBuffer()),
    status: () => ask('status'),
    audit: async () => (await ask<AuditAnswer>('audit')).records,
    hasBlob: async (sha256) => {
      try {
        await send(`/v1/admin/blobs/${sha256}`);
        return true;
      } catch (error) {
        if (error instanceof InlayError && error.code === 'ERR_INLAY_NOT_FOUND') return false;
        throw error;
      }
    },
    putBlob: async (sha256, bytes) => {
      await put(`/v1/admin/blobs/${sha256}`, bytes);
    },
    putRoot: async (bytes) => {
      await put('/v1/admin/root', bytes);
    },
    putTargets: async (bytes) => {
      await put('/v1/admin/targets', bytes);
    },
    rollout: (channel, model) => ask(rolloutPath(channel, model)),
    setRollout: (channel, model, body) => ask(rolloutPath(channel, model), 'PUT', body),
    changeRollout: (channel, model, action, body) =>
      ask(`${rolloutPath(channel, model)}/${action}`, 'POST', body),
  };
}

/** Address of a rollout below the admin plane. */
export function rolloutPath(channel: string, model: string): string {
  return `rollouts/${encodeURIComponent(channel)}/${encodeURIComponent(model)}`;
}

/** What the server says of its refusal, or else its status. */
async function errorOf(response: Response, base: string): Promise<Error> {
  try {
    const { code, message } = (await response.json()) as { code?: unknown; message?: unknown };
    if (typeof code === 'string' && /^ERR_INLAY_[A-Z_]+$/.test(code) && typeof message === 'string') {
      return fromErrorRecord({ name: 'ServerError', code, message });
    }
  } catch {
    // Not this server's JSON: a proxy, or another server.
  }
  return new NetworkError(
    'ERR_INLAY_HTTP_STATUS',
    `${base} answers with status ${response.status}; check that --server is an Inlay server.`,
    { details: { status: response.status } },
  );
}
