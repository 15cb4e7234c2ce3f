/** Keys, and the log of who changed what. */

import type { Kysely } from 'kysely';
import { z } from 'zod';
import { accessRoles } from '../access.ts';
import { verifyAudit } from '../db/audit.ts';
import type { Schema } from '../db/schema.ts';
import type { Tokens } from '../tokens.ts';
import { auditSchema, newTokenSchema, principalSchema, tokenSchema } from './answer-schemas.ts';
import { endpoint, jsonBody, type Endpoint } from './endpoint.ts';
import { countQuery, seconds, text } from './inputs.ts';

/** What these routes work on. */
export interface AccessParts {
  readonly tokens: Tokens;
  readonly db: Kysely<Schema>;
}

const idParams = z.object({ id: z.string().regex(/^[0-9a-f]{8}$/, 'It is 8 hex digits.') });
const names = z.array(text(128)).min(1).max(100);

const tokenBody = jsonBody(
  z.strictObject({
    name: text(64),
    role: z.enum(accessRoles),
    scope: z.strictObject({ models: names.exactOptional(), channels: names.exactOptional() }).exactOptional(),
    expiresInS: seconds.exactOptional(),
  }),
);

const rotateBody = jsonBody(
  z.strictObject({
    graceS: seconds.default(86_400).meta({ description: 'Seconds for which the old key still holds.' }),
  }),
);

const auditQuery = z.strictObject({
  limit: countQuery(1000).default(1000),
  before: countQuery(2 ** 31).exactOptional(),
});

/** Creates the routes. */
export function createAccessEndpoints({ tokens, db }: AccessParts): readonly Endpoint[] {
  return [
    endpoint({
      method: 'get',
      path: '/me',
      summary: 'Tells what the key that asks may do',
      role: 'viewer',
      isShared: true,
      answer: principalSchema,
      handle: ({ principal }) => Promise.resolve(principal),
    }),
    endpoint({
      method: 'get',
      path: '/tokens',
      summary: 'Lists all keys, without the keys themselves',
      role: 'admin',
      answer: z.object({ tokens: z.array(tokenSchema) }),
      handle: async () => ({ tokens: [...(await tokens.list())] }),
    }),
    endpoint({
      method: 'post',
      path: '/tokens',
      summary: 'Makes a key',
      role: 'admin',
      body: tokenBody,
      answer: newTokenSchema,
      handle: ({ body, actor }) => tokens.create(body, actor),
    }),
    endpoint({
      method: 'delete',
      path: '/tokens/{id}',
      summary: 'Ends a key at once',
      role: 'admin',
      params: idParams,
      answer: tokenSchema,
      handle: ({ params: { id }, actor }) => tokens.revoke(id, actor),
    }),
    endpoint({
      method: 'post',
      path: '/tokens/{id}/rotate',
      summary: 'Makes a key like another, which ends after a while',
      role: 'admin',
      params: idParams,
      body: rotateBody,
      answer: newTokenSchema,
      handle: ({ params: { id }, body: { graceS }, actor }) => tokens.rotate(id, graceS, actor),
    }),
    endpoint({
      method: 'get',
      path: '/audit',
      summary: 'Reads the audit log, newest first, and checks its chain',
      role: 'viewer',
      query: auditQuery,
      answer: auditSchema,
      handle: async ({ query: { limit, before } }) => {
        let rows = db.selectFrom('audit').select(['seq', 'at', 'actor', 'action', 'details', 'hash']);
        if (before !== undefined) rows = rows.where('seq', '<', before);
        const records = await rows.orderBy('seq', 'desc').limit(limit).execute();
        return {
          records: records.map((row) => ({
            ...row,
            details: JSON.parse(row.details) as Readonly<Record<string, unknown>>,
          })),
          intact: (await verifyAudit(db)).brokenSeq === undefined,
        };
      },
    }),
    endpoint({
      method: 'get',
      path: '/audit/verify',
      summary: 'Checks the whole audit log, from its first record',
      role: 'viewer',
      answer: z.object({
        seq: z.number(),
        hash: z.string(),
        brokenSeq: z.number().nullable(),
      }),
      handle: async () => {
        const { head, brokenSeq = null } = await verifyAudit(db);
        return { ...head, brokenSeq };
      },
    }),
  ];
}
