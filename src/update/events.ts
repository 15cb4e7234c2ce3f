/** What updates have done on this device: a short log that survives restarts, for `history()` and for support. */

import { fromUtf8, toUtf8 } from '../core/bytes.ts';
import { createEmitter } from '../core/events.ts';
import type { Platform } from '../core/platform.ts';
import type { Store } from '../core/store.ts';
import { isFields, isSize } from '../trust/parse.ts';
import type { SlotName } from './slot.ts';

/** Everything that is written down. The words are for programs and never change their meaning. */
export const updateEventTypes = [
  'checked',
  'offered',
  'download-started',
  'download-held',
  'download-finished',
  'way-failed',
  'verified',
  'staged',
  'load-started',
  'activated',
  'trial-passed',
  'rejected',
  'strike',
  'reverted',
  'rolled-back',
  'withdrawn',
  'degraded',
  'anchor-released',
  'record-lost',
  'record-unwritable',
  'error',
] as const;

/** Kind of an {@link UpdateEvent}. */
export type UpdateEventType = (typeof updateEventTypes)[number];

/** One thing that happened. It has facts about releases only, never about what a model was given or has answered. */
export interface UpdateEvent {
  /** Milliseconds since 1970. */
  readonly at: number;
  readonly model: string;
  readonly type: UpdateEventType;
  readonly version?: string;
  /** Of the release, lower-case hex. */
  readonly sha256?: string;
  readonly slot?: SlotName;
  /** A word for programs, such as `crash`. */
  readonly reason?: string;
  /** For people; at most 300 characters are kept. */
  readonly detail?: string;
  readonly ms?: number;
  readonly bytes?: number;
}

/** What {@link EventLog.add} takes. */
export type NewUpdateEvent = Omit<UpdateEvent, 'at'>;

/** The log of one store. */
export interface EventLog {
  /** Writes an event down soon, and tells listeners at once. */
  add(event: NewUpdateEvent): void;
  /** Writes what has not been written yet. A store that cannot be written is no failure: memory keeps what fits. */
  flush(): Promise<void>;
  /** Lists the events of all processes that share the store, oldest first, 200 at most. */
  history(): Promise<readonly UpdateEvent[]>;
  /** Calls `listener` with each event of this process. @returns unsubscribes. */
  subscribe(listener: (event: UpdateEvent) => void): () => void;
  /** Flushes, and writes no more. Safe to call twice. */
  close(): Promise<void>;
}

/** Name of the record in the store. */
export const eventsRecord = 'update-events';

/** Events that are kept: weeks of quiet, or a bad day. */
const capacity = 200;
/** Size of the record: a small write also on a phone. */
const capacityBytes = 65_536;
const detailLength = 300;
/** How long events are gathered for one write. */
const batchMs = 2000;

/**
 * Opens the log. Nothing is read or written before the first event.
 * @param onListenerError - gets what a listener throws.
 */
export function openEventLog({
  store,
  platform,
  onListenerError = () => {},
}: {
  readonly store: Pick<Store, 'readRecord' | 'updateRecord'>;
  readonly platform: Pick<Platform, 'now' | 'setTimer'>;
  readonly onListenerError?: (error: unknown) => void;
}): EventLog {
  const { on, emit } = createEmitter<{ event: UpdateEvent }>(onListenerError);
  let fresh: readonly UpdateEvent[] = [];
  let writing: Promise<void> = Promise.resolve();
  let cancelTimer: (() => void) | undefined;
  let isClosed = false;

  const write = async (): Promise<void> => {
    const batch = fresh;
    if (batch.length === 0) return;
    try {
      await store.updateRecord(eventsRecord, (present) => encode(append(readEvents(present), batch)));
      fresh = fresh.filter((event) => !batch.includes(event));
    } catch {
      // The log must not keep the app from running; the next write tries again.
    }
  };

  const flush = (): Promise<void> => {
    cancelTimer?.();
    cancelTimer = undefined;
    writing = writing.then(write);
    return writing;
  };

  return {
    add: (added) => {
      if (isClosed) return;
      const event = tidy({ at: platform.now(), ...added });
      fresh = append(fresh, [event]);
      cancelTimer ??= platform.setTimer(() => void flush(), batchMs);
      emit('event', event);
    },
    flush,
    history: async () => {
      await writing;
      const kept = readEvents(await store.readRecord(eventsRecord).catch(() => undefined));
      return append(kept, fresh);
    },
    subscribe: (listener) => on('event', listener),
    close: async () => {
      isClosed = true;
      await flush();
    },
  };
}

/**
 * Reads the log's record, also from outside the app. What is no event is skipped.
 * @returns oldest first; empty for a record that is absent or damaged.
 */
export function readEvents(bytes: Uint8Array | undefined): readonly UpdateEvent[] {
  if (bytes === undefined) return [];
  try {
    const value: unknown = JSON.parse(fromUtf8(bytes));
    return isFields(value) && Array.isArray(value['events']) ? value['events'].filter(isEvent) : [];
  } catch {
    return [];
  }
}

/** Joins two parts of the log and drops the oldest. Checks with the same result in a row count as one: the last. */
function append(events: readonly UpdateEvent[], added: readonly UpdateEvent[]): readonly UpdateEvent[] {
  const joined = [...events];
  for (const event of added) {
    const last = joined.at(-1);
    if (event.type === 'checked' && last && factsOf(last) === factsOf(event)) joined.pop();
    joined.push(event);
  }
  return joined.slice(-capacity);
}

function factsOf(event: UpdateEvent): string {
  return JSON.stringify({ ...event, at: 0, ms: 0, bytes: 0 });
}

function encode(events: readonly UpdateEvent[]): Uint8Array {
  let kept = events;
  for (;;) {
    const bytes = toUtf8(JSON.stringify({ v: 1, events: kept }));
    if (bytes.length <= capacityBytes || kept.length <= 1) return bytes;
    kept = kept.slice(Math.ceil(kept.length / 8));
  }
}

/** Only the fields that are known, in one order, and short: an event comes from code, its words from anywhere. */
function tidy(event: UpdateEvent): UpdateEvent {
  const { at, model, type, version, sha256, slot, reason, detail, ms, bytes } = event;
  return {
    at,
    model: model.slice(0, detailLength),
    type,
    ...(version !== undefined && { version: version.slice(0, detailLength) }),
    ...(sha256 !== undefined && { sha256: sha256.slice(0, 64) }),
    ...(slot !== undefined && { slot }),
    ...(reason !== undefined && { reason: reason.slice(0, detailLength) }),
    ...(detail !== undefined && { detail: detail.slice(0, detailLength) }),
    ...(ms !== undefined && { ms }),
    ...(bytes !== undefined && { bytes }),
  };
}

const isText = (value: unknown): boolean => value === undefined || typeof value === 'string';
const isAmount = (value: unknown): boolean => value === undefined || Number.isFinite(value);

function isEvent(value: unknown): value is UpdateEvent {
  return (
    isFields(value) &&
    isSize(value['at']) &&
    typeof value['model'] === 'string' &&
    updateEventTypes.some((type) => type === value['type']) &&
    [value['version'], value['sha256'], value['slot'], value['reason'], value['detail']].every(isText) &&
    [value['ms'], value['bytes']].every(isAmount)
  );
}
