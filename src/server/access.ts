/** Who may do what on the admin plane. */

import { ServerError } from '../core/errors.ts';

/** What a key or a person may do. Each of the first three may do all that the next one may. */
export type AccessRole = 'admin' | 'publisher' | 'viewer' | 'device';

/** Every role, the mightiest first. */
export const accessRoles: readonly AccessRole[] = ['admin', 'publisher', 'viewer', 'device'];

/** What a key is limited to; absent is everything. */
export interface AccessScope {
  readonly models?: readonly string[];
  readonly channels?: readonly string[];
}

/** Who sends a request. */
export interface Principal {
  /** Identifier of the key, or `oidc:` and the subject, for the audit log. */
  readonly actor: string;
  readonly role: AccessRole;
  readonly scope: AccessScope;
}

/** What a request is about, as far as it says. */
export interface Subject {
  readonly model?: string | undefined;
  readonly channel?: string | undefined;
}

/** What a route asks of who calls it. */
export interface AccessRule {
  readonly role: AccessRole;
  /** Whether keys of some models or channels may use it without naming one. Default false. */
  readonly isShared?: boolean;
}

/**
 * Checks that somebody may do something.
 * @throws {@link ServerError} `ERR_INLAY_FORBIDDEN`, with the role that is needed.
 */
export function assertAllowed(principal: Principal, rule: AccessRule, subject: Subject): void {
  const { role, scope } = principal;
  if (!isAtLeast(role, rule.role)) {
    throw new ServerError(
      'ERR_INLAY_FORBIDDEN',
      `This needs the role ${rule.role}, and the key has ${role}; ask an administrator for another key.`,
      { details: { needed: rule.role, role } },
    );
  }
  assertInScope('model', scope.models, subject.model, rule);
  assertInScope('channel', scope.channels, subject.channel, rule);
}

function isAtLeast(role: AccessRole, needed: AccessRole): boolean {
  if (needed === 'device') return role === 'device' || role === 'admin';
  return role !== 'device' && accessRoles.indexOf(role) <= accessRoles.indexOf(needed);
}

function assertInScope(
  what: 'model' | 'channel',
  allowed: readonly string[] | undefined,
  asked: string | undefined,
  rule: AccessRule,
): void {
  if (allowed === undefined || (asked === undefined && rule.isShared === true)) return;
  if (asked !== undefined && allowed.includes(asked)) return;
  throw new ServerError(
    'ERR_INLAY_FORBIDDEN',
    `The key is limited to the ${what}s ${allowed.join(', ')}; ` +
      (asked === undefined ? `name one of them.` : `use another key for this ${what}.`),
    { details: { what } },
  );
}
