/** Notifications in the form that each kind of contact takes. */

import type { Platform } from '../../core/platform.ts';
import { secretOf, urlOf, type Contact, type EmailContact, type Environment } from './contact.ts';
import { alertsOf, headlineOf, labelText, titleOf, type Notification } from './notification.ts';
import { post } from './post.ts';
import { signWebhook } from './signature.ts';
import { sendMail } from './smtp.ts';

/** What channels need. */
export interface ChannelParts {
  readonly platform: Pick<Platform, 'now'>;
  /** Where secrets are. */
  readonly env: Environment;
  /** Lets notifications go to this machine. Default false; mail servers are not concerned. */
  readonly allowLoopback?: boolean;
  /** Address of the dashboard, for links. */
  readonly dashboardUrl?: string | undefined;
  /** Certificates that mail servers may have beside those that Node trusts, PEM. */
  readonly mailCa?: string | undefined;
}

/**
 * Delivers to a contact. The same key means the same notification, however often it is sent.
 * @throws `NetworkError`; `retryable` and `retryAfterMs` in its details say whether and when to try again.
 */
export type Deliver = (
  contact: Contact,
  notification: Notification,
  key: string,
  signal: AbortSignal,
) => Promise<void>;

/** Creates the channels. */
export function createChannels(parts: ChannelParts): Deliver {
  const { platform, env, allowLoopback = false, dashboardUrl, mailCa } = parts;
  const link = dashboardUrl === undefined ? undefined : new URL('#alerts', dashboardUrl).href;

  const json = (
    url: URL,
    value: unknown,
    headers: Readonly<Record<string, string>> | ((body: string) => Readonly<Record<string, string>>),
    signal: AbortSignal,
  ): Promise<void> => {
    const body = JSON.stringify(value);
    const own = typeof headers === 'function' ? headers(body) : headers;
    const all = { 'Content-Type': 'application/json', 'User-Agent': 'inlay', ...own };
    return post({ url, body, headers: all, allowLoopback, signal });
  };

  return async (contact, notification, key, signal) => {
    switch (contact.kind) {
      case 'webhook': {
        const secret = secretOf(env, contact.secretEnv);
        const headers = (body: string): Record<string, string> => ({
          'Idempotency-Key': key,
          'Inlay-Signature': signWebhook(secret, body, Math.floor(platform.now() / 1000)),
        });
        return json(urlOf(contact, env), notification, headers, signal);
      }
      case 'slack':
        return json(
          urlOf(contact, env),
          slackMessage(notification, link),
          { 'Idempotency-Key': key },
          signal,
        );
      case 'alertmanager': {
        const base = urlOf(contact, env).href.replace(/\/?$/, '/');
        const token = contact.tokenEnv === undefined ? undefined : secretOf(env, contact.tokenEnv);
        const headers = token === undefined ? {} : { Authorization: `Bearer ${token}` };
        return json(new URL('api/v2/alerts', base), alertmanagerAlerts(notification, link), headers, signal);
      }
      case 'email':
        return sendMail({
          ...contact,
          password: contact.passwordEnv === undefined ? undefined : secretOf(env, contact.passwordEnv),
          message: mailMessage(contact, notification, key, platform.now(), link),
          ca: mailCa,
          signal,
        });
    }
  };
}

/** Writes what Slack and those like it take; names cannot mention anybody or make links. */
export function slackMessage(notification: Notification, link?: string): { readonly text: string } {
  const lines = linesOf(notification).map((line) => `• ${escapeSlack(line)}`);
  const head = `*${escapeSlack(headlineOf(notification))}*`;
  return { text: [head, ...lines, ...(link === undefined ? [] : [`<${link}|Dashboard>`])].join('\n') };
}

function escapeSlack(text: string): string {
  return text
    .replace(/[&<>]/g, (it) => (it === '&' ? '&amp;' : it === '<' ? '&lt;' : '&gt;'))
    .replace(/[*_~`]/g, '·');
}

/** One alert, as an Alertmanager takes it (API v2). */
export interface AlertmanagerAlert {
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  readonly startsAt: string;
  readonly endsAt: string;
  readonly generatorURL?: string;
}

/** Writes alerts for an Alertmanager. Those that fire end by themselves if they are not told again in time. */
export function alertmanagerAlerts(notification: Notification, link?: string): readonly AlertmanagerAlert[] {
  const repeatS = 'repeatS' in notification ? notification.repeatS : 3600;
  return alertsOf(notification).map((alert) => ({
    // The level is no label: a raised alert would be another one.
    labels: { ...alert.labels, alertname: alert.rule, source: 'inlay' },
    annotations: {
      severity: alert.level,
      summary: titleOf(alert),
      description: alert.text,
      ...(alert.runbook !== null && { runbook_url: alert.runbook }),
    },
    startsAt: new Date(alert.startsAt).toISOString(),
    endsAt: new Date(alert.endsAt || notification.at + 2 * repeatS * 1000).toISOString(),
    ...(link !== undefined && { generatorURL: link }),
  }));
}

/** Writes a message of the Internet (RFC 5322) in plain text, so that nothing in it is ever markup. */
export function mailMessage(
  { from, to }: Pick<EmailContact, 'from' | 'to'>,
  notification: Notification,
  key: string,
  nowMs: number,
  link?: string,
): string {
  const text = [...linesOf(notification), ...(link === undefined ? [] : ['', link])].join('\n');
  const body =
    Buffer.from(text)
      .toString('base64')
      .match(/.{1,76}/g) ?? [];
  return [
    `From: Inlay <${from}>`,
    `To: ${to.join(',\r\n ')}`,
    `Subject: ${encodedWords(headlineOf(notification))}`,
    `Date: ${new Date(nowMs).toUTCString().replace('GMT', '+0000')}`,
    // The same for each try, so that the reader's side can tell a copy.
    `Message-ID: <${key}@${from.slice(from.indexOf('@') + 1)}>`,
    'Auto-Submitted: auto-generated',
    'MIME-Version: 1.0',
    'Content-Type: text/plain; charset=utf-8',
    'Content-Transfer-Encoding: base64',
    '',
    ...body,
  ].join('\r\n');
}

/** Encodes a header (RFC 2047 §2): words of at most 75 characters, none of which splits a character. */
function encodedWords(text: string): string {
  const words: string[] = [''];
  for (const char of text) {
    const last = words.at(-1) ?? '';
    if (Buffer.byteLength(last + char) > 45) words.push(char);
    else words[words.length - 1] = last + char;
  }
  return words.map((word) => `=?utf-8?B?${Buffer.from(word).toString('base64')}?=`).join('\r\n ');
}

/** What happened, alert by alert, for people. */
function linesOf(notification: Notification): readonly string[] {
  if (notification.kind === 'test') return ['This is what a notification looks like. Nothing has happened.'];
  return alertsOf(notification).map((alert) => {
    const state = alert.status === 'resolved' ? 'resolved' : alert.level;
    const acked = alert.ackedBy === null ? '' : `, acknowledged by ${alert.ackedBy}`;
    const where = labelText(alert.labels);
    const runbook = alert.runbook === null ? '' : ` ${alert.runbook}`;
    return `[${state}${acked}] ${titleOf(alert)}${where === '' ? '' : ` (${where})`}: ${alert.text}.${runbook}`;
  });
}
