/** Lets requests in that say who sends them. */

import type { Context, MiddlewareHandler } from 'hono';
import { isInlayError, ServerError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import { assertAllowed, type AccessRole, type Principal } from './access.ts';
import type { AdminVariables } from './api/endpoint.ts';
import type { Oidc } from './oidc.ts';
import { createRateLimit, type Rate } from './rate-limit.ts';
import type { Tokens } from './tokens.ts';

/** How often somebody may ask. */
export interface AccessLimits {
  /** Requests to the admin plane, by key or person. Default 100 per second, 1000 at once. */
  readonly admin: Rate;
  /** Keys that do not hold, by address. Default 5 per second, 300 at once. */
  readonly failures: Rate;
  /** Requests with reports, by address; a whole fleet may be behind one. Default 5000 per second, 20 000 at once. */
  readonly reports: Rate;
}

const defaultLimits: AccessLimits = {
  admin: { perS: 100, burst: 1000 },
  failures: { perS: 5, burst: 300 },
  reports: { perS: 5000, burst: 20_000 },
};

/** What {@link createGate} needs. */
export interface GateParts {
  readonly tokens: Pick<Tokens, 'find'>;
  readonly oidc?: Oidc | undefined;
  readonly platform: Pick<Platform, 'monotonicMs'>;
  readonly limits?: Partial<AccessLimits> | undefined;
  /** Tells where a request comes from. */
  readonly addressOf: (c: Context) => string;
}

/** Middleware for the planes of a server. */
export interface Gate {
  /** For the admin plane: tells the routes behind it who asks. @throws {@link ServerError} `ERR_INLAY_UNAUTHORIZED` */
  readonly admin: MiddlewareHandler<{ Variables: AdminVariables }>;
  /** For devices: counts requests by address. */
  readonly reports: MiddlewareHandler;
  /** For one role, without routes that say which they need. */
  requireRole(role: AccessRole): MiddlewareHandler;
}

/** Creates the middleware. */
export function createGate({ tokens, oidc, platform, limits = {}, addressOf }: GateParts): Gate {
  const rates = { ...defaultLimits, ...limits };
  const requests = createRateLimit(rates.admin, platform);
  const failures = createRateLimit(rates.failures, platform);
  const reports = createRateLimit(rates.reports, platform);

  const identify = async (token: string): Promise<Principal> => {
    if (oidc && token.split('.').length === 3) return oidc.verify(token);
    const record = await tokens.find(token);
    if (record?.state === 'valid') return { actor: record.id, role: record.role, scope: record.scope };
    throw new ServerError(
      'ERR_INLAY_UNAUTHORIZED',
      record
        ? `The key ${record.id} is ${record.state}; ask an administrator for another.`
        : 'The token is not valid; use the one printed at the first start, or `inlay server --new-token` for another.',
    );
  };

  const authenticate = async (c: Context): Promise<Principal> => {
    const token = /^Bearer +(\S+) *$/i.exec(c.req.header('authorization') ?? '')?.[1];
    if (token === undefined) {
      c.header('WWW-Authenticate', 'Bearer');
      throw new ServerError(
        'ERR_INLAY_UNAUTHORIZED',
        'This needs a token; send it as `Authorization: Bearer TOKEN`.',
      );
    }
    try {
      return await identify(token);
    } catch (error) {
      if (isInlayError(error) && error.code === 'ERR_INLAY_UNAUTHORIZED') {
        // Only those who fail: a stranger behind the same proxy locks nobody out.
        failures.take(addressOf(c));
        // RFC 6750 §3: what is wrong with the token.
        c.header('WWW-Authenticate', 'Bearer error="invalid_token"');
      }
      throw error;
    }
  };

  return {
    admin: async (c, next) => {
      const principal = await authenticate(c);
      requests.take(principal.actor);
      c.set('principal', principal);
      await next();
    },
    reports: async (c, next) => {
      reports.take(addressOf(c));
      await next();
    },
    requireRole: (role) => async (c, next) => {
      assertAllowed(await authenticate(c), { role, isShared: true }, {});
      await next();
    },
  };
}
