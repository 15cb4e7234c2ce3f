/** Where notifications go. What is secret is in the environment of the server, and named here. */

import { z } from 'zod';
import { ServerError } from '../../core/errors.ts';
import { LEVELS, type Level } from './rule.ts';
import { nameSchema, readAs } from './rule-reader.ts';

interface ContactBase {
  /** 1 to 64 characters of `a-z 0-9 . _ -`. */
  readonly id: string;
  /** Takes what its rule does not route. Default true. */
  readonly isDefault: boolean;
  /** Levels of which it hears. Default all. */
  readonly levels: readonly Level[];
}

/** An address, or the name of the variable of the environment that has it. */
interface Address {
  readonly url?: string | undefined;
  readonly urlEnv?: string | undefined;
}

/** Somebody who takes JSON, signed with HMAC-SHA256. */
export interface WebhookContact extends ContactBase, Address {
  readonly kind: 'webhook';
  /** Variable with the secret. */
  readonly secretEnv: string;
}

/** Slack, or whoever takes the same JSON. */
export interface SlackContact extends ContactBase, Address {
  readonly kind: 'slack';
}

/** An Alertmanager, without `/api/v2/alerts`. */
export interface AlertmanagerContact extends ContactBase, Address {
  readonly kind: 'alertmanager';
  /** Variable with a bearer token. */
  readonly tokenEnv?: string | undefined;
}

/** People, by way of a mail server. */
export interface EmailContact extends ContactBase {
  readonly kind: 'email';
  readonly to: readonly string[];
  readonly from: string;
  readonly host: string;
  readonly port: number;
  /** `starttls` and `tls` check the server's certificate; `plain` is for a server on the same machine. Default `starttls`. */
  readonly security: 'starttls' | 'tls' | 'plain';
  readonly user?: string | undefined;
  /** Variable with the password. */
  readonly passwordEnv?: string | undefined;
}

/** Any of them. */
export type Contact = WebhookContact | SlackContact | AlertmanagerContact | EmailContact;

/** Variables have this prefix, so that no contact can be made to give away another secret of the server. */
const variable = z.string().regex(/^INLAY_ALERT_[A-Z0-9_]{1,64}$/, 'It is a variable INLAY_ALERT_….');
const url = z
  .url({ protocol: /^https?$/ })
  .max(2000)
  .refine((it) => !hasCredentials(it), { error: 'It has no user or password in it; use the variables.' });
const mailbox = z.email().max(254);

const base = {
  id: nameSchema,
  isDefault: z.boolean().default(true),
  levels: z
    .array(z.enum(LEVELS))
    .min(1)
    .max(3)
    .default([...LEVELS]),
};
const address = { url: url.optional(), urlEnv: variable.optional() };

/** Schema of contacts, for the description of the API. */
export const contactSchema: z.ZodType<Contact> = z
  .discriminatedUnion('kind', [
    z.strictObject({ ...base, ...address, kind: z.literal('webhook'), secretEnv: variable }),
    z.strictObject({ ...base, ...address, kind: z.literal('slack') }),
    z.strictObject({ ...base, ...address, kind: z.literal('alertmanager'), tokenEnv: variable.optional() }),
    z.strictObject({
      ...base,
      kind: z.literal('email'),
      to: z.array(mailbox).min(1).max(20),
      from: mailbox,
      host: z.string().regex(/^[a-zA-Z0-9.:-]{1,253}$/),
      port: z.int().min(1).max(65_535).default(587),
      security: z.enum(['starttls', 'tls', 'plain']).default('starttls'),
      user: z
        .string()
        .max(254)
        .regex(/^\P{Cc}*$/u)
        .optional(),
      passwordEnv: variable.optional(),
    }),
  ])
  .superRefine((contact, context) => {
    if (contact.kind !== 'email' && (contact.url === undefined) === (contact.urlEnv === undefined))
      context.addIssue({ code: 'custom', path: ['url'], message: 'It is given once, here or in `urlEnv`' });
    if (contact.kind === 'email' && (contact.user === undefined) !== (contact.passwordEnv === undefined))
      context.addIssue({ code: 'custom', path: ['user'], message: 'It comes with `passwordEnv`' });
  });

/**
 * Reads a contact.
 * @throws {@link ServerError} `ERR_INLAY_REFUSED`
 */
export function readContact(value: unknown): Contact {
  return readAs(contactSchema, value, 'contact');
}

/** The server's environment. */
export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Looks up a secret.
 * @throws {@link ServerError} `ERR_INLAY_REFUSED` if it is not set.
 */
export function secretOf(env: Environment, name: string): string {
  const value = env[name];
  if (value !== undefined && value !== '') return value;
  throw new ServerError('ERR_INLAY_REFUSED', `The variable ${name} of the server's environment is not set.`, {
    details: { variable: name },
  });
}

/** Finds where to send to. @throws {@link ServerError} `ERR_INLAY_REFUSED` */
export function urlOf({ url: known, urlEnv }: Address, env: Environment): URL {
  const text = known ?? secretOf(env, urlEnv ?? '');
  const parsed = URL.canParse(text) ? new URL(text) : undefined;
  if (parsed && (parsed.protocol === 'https:' || parsed.protocol === 'http:')) return parsed;
  throw new ServerError('ERR_INLAY_REFUSED', `The variable ${urlEnv ?? ''} does not hold an address.`);
}

function hasCredentials(text: string): boolean {
  const { username, password } = new URL(text);
  return username !== '' || password !== '';
}
