/** People who sign in elsewhere: bearer tokens of an OpenID Connect provider. */

import { createHash } from 'node:crypto';
import { createRemoteJWKSet, customFetch, errors, jwtVerify, type JWTPayload } from 'jose';
import { ServerError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import { accessRoles, type AccessRole, type Principal } from './access.ts';

/** Which provider is trusted, and for what. */
export interface OidcOptions {
  /** As in its tokens, such as `https://login.example.com`. */
  readonly issuer: string;
  /** Whom tokens are for: this server. */
  readonly audience: string;
  /** Claim with the role or roles; dots lead into objects, such as `realm_access.roles`. Default `roles`. */
  readonly roleClaim?: string;
  /** Roles by what the claim says; what is not here is ignored. Default: the claim has roles of Inlay. */
  readonly roles?: Readonly<Record<string, AccessRole>>;
}

/** Tells who a token of the provider stands for. */
export interface Oidc {
  /** @throws {@link ServerError} `ERR_INLAY_UNAUTHORIZED`, `ERR_INLAY_FORBIDDEN` if it has no role here. */
  verify(token: string): Promise<Principal>;
}

/** Asymmetric algorithms only: a shared secret would be one more to keep (RFC 8725 §3.1). */
const algorithms = [
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'EdDSA',
  'Ed25519',
];
const toleranceS = 60;
/** Longest actor that the audit log takes. */
const actorLength = 64;

/**
 * Reads the settings from the environment: `INLAY_OIDC_ISSUER`, `INLAY_OIDC_AUDIENCE`, `INLAY_OIDC_ROLE_CLAIM`, and
 * `INLAY_OIDC_ROLES` as `ml-admins=admin,ml-team=publisher`.
 * @returns `undefined` where no issuer is named.
 * @throws `TypeError` if they do not fit together.
 */
export function readOidcOptions(env: Readonly<Record<string, string | undefined>>): OidcOptions | undefined {
  const issuer = env['INLAY_OIDC_ISSUER'];
  if (issuer === undefined || issuer === '') return undefined;
  const audience = env['INLAY_OIDC_AUDIENCE'];
  if (audience === undefined || audience === '') {
    throw new TypeError('INLAY_OIDC_ISSUER needs INLAY_OIDC_AUDIENCE: whom the tokens are for.');
  }
  const roleClaim = env['INLAY_OIDC_ROLE_CLAIM'];
  const roles = env['INLAY_OIDC_ROLES'];
  return {
    issuer,
    audience,
    ...(roleClaim && { roleClaim }),
    ...(roles && { roles: readRoles(roles) }),
  };
}

/** Creates the check. Nothing is fetched before the first token; keys are kept and fetched again when they change. */
export function createOidc(options: OidcOptions, platform: Pick<Platform, 'fetch' | 'now'>): Oidc {
  const { issuer, audience, roleClaim = 'roles', roles } = options;
  let keys: Promise<ReturnType<typeof createRemoteJWKSet>> | undefined;

  const openKeys = async (): Promise<ReturnType<typeof createRemoteJWKSet>> => {
    const response = await platform.fetch(`${issuer.replace(/\/+$/, '')}/.well-known/openid-configuration`);
    if (!response.ok) throw new Error(`The provider answers with status ${response.status}.`);
    const { issuer: named, jwks_uri: address } = (await response.json()) as Readonly<Record<string, unknown>>;
    // OpenID Connect Discovery 1.0 §4.3: another issuer's document is not this one's.
    if (named !== issuer || typeof address !== 'string')
      throw new Error('The document is of another issuer.');
    return createRemoteJWKSet(new URL(address), {
      [customFetch]: (url: string, init: RequestInit) => platform.fetch(url, init),
    });
  };

  return {
    verify: async (token) => {
      let payload: JWTPayload;
      try {
        keys ??= openKeys();
        const set = await keys.catch((cause: unknown) => {
          keys = undefined;
          throw unreachable(issuer, cause);
        });
        ({ payload } = await jwtVerify(token, set, {
          issuer,
          audience,
          algorithms,
          clockTolerance: toleranceS,
          currentDate: new Date(platform.now()),
          requiredClaims: ['exp', 'sub'],
        }));
      } catch (cause) {
        if (cause instanceof ServerError) throw cause;
        if (cause instanceof errors.JWKSTimeout || !isOfToken(cause)) throw unreachable(issuer, cause);
        throw new ServerError(
          'ERR_INLAY_UNAUTHORIZED',
          cause instanceof errors.JWTExpired
            ? 'The bearer token has expired; sign in again.'
            : 'The bearer token is not valid here; sign in again at the provider of this server.',
          { cause },
        );
      }
      const role = roleOf(claimOf(payload, roleClaim), roles);
      if (role === undefined) {
        throw new ServerError(
          'ERR_INLAY_FORBIDDEN',
          `The bearer token has no role of this server in its claim ${roleClaim}; ask an administrator for one.`,
        );
      }
      return { actor: actorOf(payload.sub ?? ''), role, scope: {} };
    },
  };
}

/** Whether an error is about a token rather than about the way to the provider's keys. */
function isOfToken(error: unknown): boolean {
  return (
    error instanceof errors.JOSEError &&
    error.code !== 'ERR_JOSE_GENERIC' &&
    error.code !== 'ERR_JWKS_INVALID'
  );
}

function claimOf(payload: JWTPayload, path: string): readonly unknown[] {
  let value: unknown = payload;
  for (const name of path.split('.')) {
    value =
      typeof value === 'object' && value !== null && Object.hasOwn(value, name)
        ? (value as Readonly<Record<string, unknown>>)[name]
        : undefined;
  }
  return Array.isArray(value) ? value : [value];
}

/** The mightiest role that is named. Devices have keys, and do not sign in. */
function roleOf(names: readonly unknown[], roles: OidcOptions['roles']): AccessRole | undefined {
  return accessRoles.find(
    (role) =>
      role !== 'device' &&
      names.some((name) =>
        roles === undefined
          ? name === role
          : typeof name === 'string' && Object.hasOwn(roles, name) && roles[name] === role,
      ),
  );
}

function readRoles(text: string): Readonly<Record<string, AccessRole>> {
  return Object.fromEntries(
    text.split(',').map((pair) => {
      const [name = '', wanted] = pair.split('=').map((part) => part.trim());
      const role = accessRoles.find((known) => known === wanted && known !== 'device');
      if (name !== '' && role !== undefined) return [name, role] as const;
      throw new TypeError(
        `INLAY_OIDC_ROLES has ${JSON.stringify(pair)}; write it like ml-admins=admin,ml-team=publisher.`,
      );
    }),
  );
}

function unreachable(issuer: string, cause: unknown): ServerError {
  return new ServerError(
    'ERR_INLAY_SERVER',
    `The keys of ${issuer} cannot be read; check INLAY_OIDC_ISSUER and the way there.`,
    { cause },
  );
}

/** The name of a person in the audit log. A long one is told from others by the hash of all of it. */
function actorOf(subject: string): string {
  const name = `oidc:${subject}`;
  if (name.length <= actorLength) return name;
  const digest = createHash('sha256').update(subject).digest('hex').slice(0, 12);
  return `${name.slice(0, actorLength - digest.length - 1)}~${digest}`;
}
