/** The OpenAPI document of the admin plane, written from its routes. */

import { z } from 'zod';
import type { Endpoint } from './endpoint.ts';

/** An OpenAPI 3.1 document, as far as it is built here. */
export interface ApiDocument {
  readonly openapi: '3.1.0';
  readonly info: { readonly title: string; readonly version: string; readonly description: string };
  readonly paths: Readonly<Record<string, Readonly<Record<string, ApiOperation>>>>;
  readonly components: Readonly<Record<string, unknown>>;
  readonly security: readonly Readonly<Record<string, readonly string[]>>[];
}

/** One operation. */
export interface ApiOperation {
  readonly operationId: string;
  readonly summary: string;
  /** Least role that may use it. */
  readonly 'x-inlay-role': string;
  readonly parameters?: readonly {
    readonly name: string;
    readonly in: 'path' | 'query';
    readonly required: boolean;
    readonly schema: unknown;
  }[];
  readonly requestBody?: {
    readonly required: true;
    readonly content: Readonly<Record<string, { readonly schema: unknown }>>;
  };
  readonly responses: Readonly<Record<string, unknown>>;
}

/** Where the document is, below the admin plane. */
export const documentPath = '/openapi.json';

const problem = z.object({ code: z.string(), message: z.string() });

const refusals: Readonly<Record<string, string>> = {
  400: 'The body broke off.',
  401: 'There is no key, or it does not hold.',
  403: 'The key has not the role, or not for this model or channel.',
  404: 'There is no such thing.',
  409: 'It does not fit what is in force.',
  413: 'The body is too long.',
  421: 'This replica cannot sign; the message says where to go.',
  422: 'The request is not as it has to be.',
  429: 'Too many requests; `Retry-After` says when to ask again.',
};

/** Writes the document. */
export function createDocument(endpoints: readonly Endpoint[], version: string): ApiDocument {
  const paths: Record<string, Record<string, ApiOperation>> = {};
  for (const endpoint of endpoints) {
    (paths[`/v1/admin${endpoint.path}`] ??= {})[endpoint.method] = describe(endpoint);
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'Inlay sync server: admin plane',
      version,
      description:
        'Releases, rollouts, telemetry, alerts and keys. Times are milliseconds since 1970 unless a field says otherwise.',
    },
    paths,
    components: {
      schemas: { Problem: toSchema(problem) },
      securitySchemes: {
        key: { type: 'http', scheme: 'bearer', description: 'API key, or a token of the OpenID provider.' },
      },
    },
    security: [{ key: [] }],
  };
}

function describe({ method, path, summary, role, isBinary, schemas }: Endpoint): ApiOperation {
  const parameters = [...parametersOf(schemas.params, 'path'), ...parametersOf(schemas.query, 'query')];
  const body = isBinary
    ? { 'application/octet-stream': { schema: { type: 'string', format: 'binary' } } }
    : schemas.body && { 'application/json': { schema: toSchema(schemas.body) } };
  return {
    operationId: `${method}${path.replace(/[^a-z0-9]+([a-z0-9])/gi, (_, first: string) => first.toUpperCase()).replace(/\W/g, '')}`,
    summary,
    'x-inlay-role': role,
    ...(parameters.length > 0 && { parameters }),
    ...(body && method !== 'get' && { requestBody: { required: true, content: body } }),
    responses: {
      200: { description: 'Done.', content: { 'application/json': { schema: toSchema(schemas.answer) } } },
      ...Object.fromEntries(
        Object.entries(refusals).map(([status, description]) => [
          status,
          {
            description,
            content: { 'application/json': { schema: { $ref: '#/components/schemas/Problem' } } },
          },
        ]),
      ),
    },
  };
}

function parametersOf(
  schema: z.ZodType | undefined,
  where: 'path' | 'query',
): NonNullable<ApiOperation['parameters']> {
  if (!schema) return [];
  const { properties = {}, required = [] } = toSchema(schema) as {
    properties?: Readonly<Record<string, unknown>>;
    required?: readonly string[];
  };
  return Object.entries(properties).map(([name, described]) => ({
    name,
    in: where,
    required: required.includes(name),
    schema: described,
  }));
}

function toSchema(schema: z.ZodType): unknown {
  const { $schema: _, ...described } = z.toJSONSchema(schema, { unrepresentable: 'any', io: 'input' });
  return described;
}
