/** Delivers what is in the outbox: at least once, under one key, until it works or is given up. */

import type { Kysely } from 'kysely';
import { isInlayError } from '../../core/errors.ts';
import type { Platform } from '../../core/platform.ts';
import { fullJitter } from '../../core/retry.ts';
import type { Schema } from '../db/schema.ts';
import type { Job } from '../jobs/job.ts';
import type { Deliver } from './channels.ts';
import { ROLLBACK_CONTACT, type ActionNotification, type Notification } from './notification.ts';
import { readContacts } from './store.ts';

/** Tries before it is given up: over half a day. */
const MOST_ATTEMPTS = 16;
const BASE_MS = 5000;
const CAP_MS = 3_600_000;
/** Deliveries per round, and at once. */
const BATCH = 64;
const PARALLEL = 8;
/** What was delivered is kept for so long, for the list. */
const KEEP_MS = 30 * 86_400_000;

/** What the outbox needs. */
export interface OutboxParts {
  readonly db: Kysely<Schema>;
  readonly platform: Pick<Platform, 'now' | 'random'>;
  readonly deliver: Deliver;
  /** Takes the rollouts of a model back. Absent: rules that ask for it are told in vain. */
  readonly rollback?: ((action: ActionNotification) => Promise<void>) | undefined;
  readonly onError: (error: unknown) => void;
}

/** A delivery for people. */
export interface Delivery {
  readonly key: string;
  readonly contact: string;
  readonly attempts: number;
  /** `dead`: given up; see `error`. */
  readonly state: 'waiting' | 'delivered' | 'dead';
  readonly nextAt: number;
  readonly doneAt: number;
  readonly error: string;
}

/**
 * Creates the job. A server that ends between sending and noting it sends again, with the same key. Failures that may pass are
 * tried again after a random part of 5 s · 2^n, at most an hour, and not before the receiver allows it (`Retry-After`).
 */
export function createOutboxJob({ db, platform, deliver, rollback, onError }: OutboxParts): Job {
  const send = async (contactId: string, notification: Notification, key: string, signal: AbortSignal) => {
    if (contactId === ROLLBACK_CONTACT) {
      if (!('alert' in notification) || !rollback)
        throw new Error('This server takes nothing back by itself.');
      return rollback(notification);
    }
    const contact = (await readContacts(db)).find(({ id }) => id === contactId);
    if (!contact) throw new Error('There is no such contact any more.');
    return deliver(contact, notification, key, signal);
  };

  const attempt = async (
    row: { id: number; contact: string; key: string; body: string; attempts: number },
    signal: AbortSignal,
  ): Promise<void> => {
    const attempts = row.attempts + 1;
    try {
      await send(row.contact, JSON.parse(row.body) as Notification, row.key, signal);
      await note(row.id, { attempts, done_at: platform.now(), next_at: 0, error: '' });
    } catch (error) {
      // The next replica goes on, and this was no fault of the receiver.
      if (signal.aborted) return;
      onError(error);
      const mayPass = isInlayError(error)
        ? error.details['retryable'] === true
        : row.contact === ROLLBACK_CONTACT;
      const isDead = !mayPass || attempts >= MOST_ATTEMPTS;
      const asked = isInlayError(error) ? Number(error.details['retryAfterMs'] ?? 0) : 0;
      const wait = Math.max(
        Math.min(asked, 24 * CAP_MS),
        fullJitter(platform, attempts - 1, BASE_MS, CAP_MS),
      );
      await note(row.id, {
        attempts,
        done_at: isDead ? platform.now() : 0,
        next_at: isDead ? 0 : Math.ceil(platform.now() + wait),
        error: (error instanceof Error ? error.message : String(error)).slice(0, 500) || 'It failed.',
      });
    }
  };

  const note = async (
    id: number,
    change: { attempts: number; done_at: number; next_at: number; error: string },
  ): Promise<void> => {
    await db.updateTable('outbox').set(change).where('id', '=', id).execute();
  };

  return {
    name: 'outbox',
    everyMs: 2000,
    run: async (now, signal) => {
      const due = await db
        .selectFrom('outbox')
        .select(['id', 'contact', 'key', 'body', 'attempts'])
        .where('done_at', '=', 0)
        .where('next_at', '<=', now)
        .orderBy('next_at')
        .orderBy('id')
        .limit(BATCH)
        .execute();
      const waiting = [...due];
      const worker = async (): Promise<void> => {
        for (let row = waiting.shift(); row && !signal.aborted; row = waiting.shift())
          await attempt(row, signal);
      };
      await Promise.all(Array.from({ length: PARALLEL }, worker));
      await db
        .deleteFrom('outbox')
        .where('done_at', '>', 0)
        .where('done_at', '<', now - KEEP_MS)
        .execute();
    },
  };
}

/** Lists deliveries: those that wait or were given up, and the latest ones. */
export async function readDeliveries(db: Kysely<Schema>, most = 200): Promise<readonly Delivery[]> {
  const rows = await db
    .selectFrom('outbox')
    .select(['key', 'contact', 'attempts', 'next_at', 'done_at', 'error'])
    .orderBy('id', 'desc')
    .limit(most)
    .execute();
  return rows.map(({ key, contact, attempts, next_at, done_at, error }) => ({
    key,
    contact,
    attempts,
    state: done_at === 0 ? 'waiting' : error === '' ? 'delivered' : 'dead',
    nextAt: next_at,
    doneAt: done_at,
    error,
  }));
}
