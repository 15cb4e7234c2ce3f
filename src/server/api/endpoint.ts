/** One route of the admin API: who may use it, what it takes, what it answers, and what does it. */

import type { Context } from 'hono';
import type { z } from 'zod';
import { ServerError } from '../../core/errors.ts';
import { assertAllowed, type AccessRule, type Principal } from '../access.ts';
import { readJsonObject } from '../body.ts';

/** What the guard of the admin plane tells the routes behind it. */
export interface AdminVariables {
  readonly principal: Principal;
}

/** A request of the admin plane. */
export type AdminContext = Context<{ Variables: AdminVariables }>;

/** What a handler gets. */
export interface ApiRequest<Params, Query, Body> {
  readonly params: Params;
  readonly query: Query;
  readonly body: Body;
  /** For the audit log. */
  readonly actor: string;
  readonly principal: Principal;
  /** The request itself, for bodies that are no JSON. */
  readonly raw: Request;
}

/** A body of JSON: what describes it, and what reads it. */
export interface BodyReader<Body> {
  readonly schema: z.ZodType;
  read(fields: Readonly<Record<string, unknown>>): Body;
}

/** A route. */
export interface EndpointParts<Params, Query, Body, Answer> extends AccessRule {
  readonly method: 'get' | 'put' | 'post' | 'delete';
  /** Below `/v1/admin`, with parameters in braces. */
  readonly path: `/${string}`;
  /** One present-tense phrase for the document. */
  readonly summary: string;
  readonly params?: z.ZodType<Params>;
  readonly query?: z.ZodType<Query>;
  readonly body?: BodyReader<Body>;
  /** Whether the body is bytes, which the handler reads itself. */
  readonly isBinary?: boolean;
  /** Whether it makes the server sign, which replicas cannot. */
  readonly signs?: boolean;
  readonly answer: z.ZodType<Answer>;
  handle(request: ApiRequest<Params, Query, Body>): Promise<Answer>;
}

/** A route as the app and the document see it. */
export interface Endpoint extends AccessRule {
  readonly method: EndpointParts<unknown, unknown, unknown, unknown>['method'];
  readonly path: string;
  readonly summary: string;
  readonly isBinary: boolean;
  readonly signs: boolean;
  readonly schemas: Readonly<Partial<Record<'params' | 'query' | 'body', z.ZodType>>> & {
    readonly answer: z.ZodType;
  };
  /** @throws what the reader and the handler throw, or `ERR_INLAY_FORBIDDEN`. */
  serve(c: AdminContext): Promise<Response>;
}

/** Creates a route. The role is checked before anything of the request is read. */
export function endpoint<Params = undefined, Query = undefined, Body = undefined, Answer = unknown>(
  parts: EndpointParts<Params, Query, Body, Answer>,
): Endpoint {
  const { method, path, summary, role, isShared = false, isBinary = false, signs = false } = parts;
  const { params, query, body, answer } = parts;

  return {
    method,
    path,
    summary,
    role,
    isShared,
    isBinary,
    signs,
    schemas: {
      ...(params && { params }),
      ...(query && { query }),
      ...(body && { body: body.schema }),
      answer,
    },
    serve: async (c) => {
      const principal = c.get('principal');
      // What a route does not read says nothing about what it does.
      const given = { ...(query && c.req.query()), ...c.req.param() } as Readonly<
        Record<string, string | undefined>
      >;
      assertAllowed(principal, { role, isShared }, { model: given['model'], channel: given['channel'] });
      const request = {
        params: readWith(params, c.req.param(), 'address'),
        query: readWith(query, c.req.query(), 'query'),
        body: body ? body.read(await readJsonObject(c.req.raw)) : (undefined as Body),
        actor: principal.actor,
        principal,
        raw: c.req.raw,
      };
      return c.json((await parts.handle(request)) as object);
    },
  };
}

/** Takes a body that fits a schema. */
export function jsonBody<Body>(schema: z.ZodType<Body>): BodyReader<Body> {
  return { schema, read: (fields) => readWith(schema, fields, 'body') };
}

function readWith<Value>(schema: z.ZodType<Value> | undefined, input: unknown, where: string): Value {
  if (!schema) return undefined as Value;
  const result = schema.safeParse(input);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const place = (issue?.path ?? []).map(String).join('.').slice(0, 80);
  throw new ServerError(
    'ERR_INLAY_REFUSED',
    `The ${where} is not as it has to be${place === '' ? '' : ` at ${JSON.stringify(place)}`}: ` +
      `${(issue?.message ?? 'invalid').slice(0, 200)}; see /v1/admin/openapi.json.`,
  );
}
