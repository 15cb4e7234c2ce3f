/** Signatures of webhooks: HMAC-SHA256 over the time and the body. */

import { createHmac, timingSafeEqual } from 'node:crypto';

/** Receivers refuse what is older than this, seconds: a copy of a notification cannot be played back later. */
const REPLAY_WINDOW_S = 300;

/**
 * Signs a body: `t=<seconds since 1970>,v1=<hex of HMAC-SHA256(secret, "<t>.<body>")>`.
 * @param atS - when it is sent; signed anew with each try.
 */
export function signWebhook(secret: string, body: string, atS: number): string {
  return `t=${atS},v1=${macOf(secret, body, String(atS)).toString('hex')}`;
}

/**
 * Tells whether a notification comes from whoever has the secret, and is not a copy of an older one. A receiver that also
 * remembers the header `Idempotency-Key` for this long acts on each notification once.
 */
export function verifyWebhook(header: string, body: string, secret: string, nowS: number): boolean {
  const [, at, mac] = /^t=(\d{1,15}),v1=([0-9a-f]{64})$/.exec(header) ?? [];
  if (at === undefined || mac === undefined || Math.abs(nowS - Number(at)) > REPLAY_WINDOW_S) return false;
  return timingSafeEqual(macOf(secret, body, at), Buffer.from(mac, 'hex'));
}

function macOf(secret: string, body: string, at: string): Buffer {
  return createHmac('sha256', secret).update(`${at}.${body}`).digest();
}
