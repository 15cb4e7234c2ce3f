import { createHash, timingSafeEqual } from 'node:crypto';
import type { MiddlewareHandler } from 'hono';
import { ServerError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import type { Repository } from './db/repository.ts';

/** What the middleware tells the routes behind it. */
export interface AdminVariables {
  /** First digits of the token's SHA-256, for the audit log. */
  readonly actor: string;
}

/** Creates a token with 256 random bits. */
export function createToken(platform: Pick<Platform, 'randomBytes'>): string {
  return `inlay_${Buffer.from(platform.randomBytes(32)).toString('base64url')}`;
}

/** Computes the only form in which the server remembers a token. */
export function hashToken(token: string): string {
  return createHash('sha256').update(token).digest('hex');
}

/**
 * Lets only requests with a valid `Authorization: Bearer` token through.
 * @throws {@link ServerError} `ERR_INLAY_UNAUTHORIZED`, for the app's error handler.
 */
export function requireToken(
  repository: Pick<Repository, 'tokenHashes'>,
): MiddlewareHandler<{ Variables: AdminVariables }> {
  return async (c, next) => {
    const token = /^Bearer +(\S+) *$/i.exec(c.req.header('authorization') ?? '')?.[1];
    const presented = hashToken(token ?? '');
    const hashes = await repository.tokenHashes();
    // Every hash is compared in full, so that the time taken says nothing.
    const matches = hashes.filter((hash) =>
      timingSafeEqual(Buffer.from(hash, 'hex'), Buffer.from(presented, 'hex')),
    );
    if (token === undefined || matches.length === 0) {
      c.header('WWW-Authenticate', 'Bearer');
      throw new ServerError(
        'ERR_INLAY_UNAUTHORIZED',
        token === undefined
          ? 'The admin plane needs a token; send it as `Authorization: Bearer TOKEN`.'
          : 'The token is not valid; use the one printed at the first start, or `inlay server --new-token` for another.',
      );
    }
    c.set('actor', presented.slice(0, 8));
    await next();
  };
}
