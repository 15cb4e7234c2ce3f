/**
 * Keeps what was counted until the server has it. Counts are journaled, sealed into reports whose bytes never change, and
 * forgotten when the server has acknowledged them. Whatever crashes at whatever step, nothing counts twice.
 */

import type { Platform } from '../core/platform.ts';
import type { Store } from '../core/store.ts';
import { base64Url } from './base64-url.ts';
import type { ReportWindow } from './report.ts';
import {
  changeIndex,
  CLOSED,
  claimPlaces,
  decodeIndex,
  INDEX_RECORD,
  nameReporter,
  spoolRecordName,
} from './spool-index.ts';
import {
  addLosses,
  coarsen,
  decodeSpool,
  encodeSpool,
  fit,
  forget,
  handOver,
  seal,
  takeIn,
  windowsOf,
  type Batch,
  type Join,
  type Losses,
  type ReportHead,
  type Sealed,
  type SpoolRecord,
} from './spool-record.ts';

/** What {@link createSpool} works with. */
export interface SpoolParts {
  readonly platform: Pick<Platform, 'randomBytes' | 'instance' | 'now'>;
  readonly store: Pick<Store, 'readRecord' | 'updateRecord'>;
  readonly join: Join;
}

/** What is waiting for the server. */
export interface Spool {
  /** Takes over what runs that have died left behind. */
  open(): Promise<void>;
  /** Name of this installation for telemetry; `undefined` before the first journal. */
  dev(): string | undefined;
  /**
   * Writes counts down. Where that fails, they wait in memory for the next time, in times as coarse as they need to be.
   * @throws {@link StoreError} as the store does.
   */
  journal(windows: readonly ReportWindow[], drop?: Losses): Promise<void>;
  /**
   * Seals everything that is open.
   * @throws {@link StoreError}; then nothing of it may be sent.
   */
  seal(head: (dev: string) => ReportHead): Promise<void>;
  /** Reports that are sealed and not acknowledged, oldest first. */
  sealed(): readonly Sealed[];
  /** Windows that are open, and those in memory. */
  waiting(): number;
  /** Forgets reports that the server has, or refuses. */
  acknowledge(gone: readonly Pick<Sealed, 'epoch' | 'seq'>[], drop?: Losses): Promise<void>;
  /** Changes what is open, and drops reports: for consent that was taken back in part. */
  strip(change: (window: ReportWindow) => ReportWindow): Promise<void>;
  /** Deletes everything, the name of this installation as well. @returns names that the server is to forget. */
  wipe(): Promise<readonly string[]>;
  /** Names that the server is still to forget. */
  toForget(): Promise<readonly string[]>;
  forgotten(dev: string): Promise<void>;
  /** Lets later runs have what is left. Safe to call twice. */
  close(): Promise<void>;
}

/** A record that this reporter owns. */
interface Place {
  readonly place: number;
  readonly epoch: string;
  record: SpoolRecord;
}

/** Series that wait in memory while the store cannot be written. */
const MOST_IN_MEMORY = 64;

/** Creates the spool of one reporter. Nothing is read or written before the first call. */
export function createSpool({ platform, store, join }: SpoolParts): Spool {
  let run = '';
  let turn: Promise<unknown> = Promise.resolve();
  let dev: string | undefined;
  let own: Place | undefined;
  let left: readonly Place[] = [];
  /** What is being written, by number and owner, and what comes after it. */
  let pending: (Batch & { readonly epoch: string | undefined }) | undefined;
  let fresh: readonly ReportWindow[] = [];
  let lost: Losses = {};

  const draw = (bytes: number): string => base64Url(platform.randomBytes(bytes));

  const inTurn = <Result>(task: () => Promise<Result>): Promise<Result> => {
    const result = turn.then(task);
    turn = result.catch(() => {});
    return result;
  };

  const take = async (place: number, of: string): Promise<Place> => {
    const epoch = draw(8);
    let record = handOver(undefined, of, epoch);
    await store.updateRecord(spoolRecordName(place), (bytes) => {
      record = handOver(decodeSpool(bytes), of, epoch);
      return encodeSpool(record);
    });
    return { place, epoch, record };
  };

  /** Owns a record, if none is owned yet. */
  const open = async (): Promise<Place> => {
    if (own !== undefined) return own;
    if (run === '') run = nameReporter(platform.instance, draw(6));
    const claim = await claimPlaces(store, platform, run, () => draw(12));
    ({ dev } = claim);
    const others: Place[] = [];
    for (const place of claim.left) others.push(await take(place, claim.dev));
    const taken = await take(claim.own, claim.dev);
    left = others;
    own = taken;
    // Whether a write that seemed to fail counted, is written where it went.
    if (pending?.epoch !== undefined) {
      const { epoch, number } = pending;
      const owners = [taken, ...others].flatMap(({ record }) => record.before);
      if (owners.some(([of, batch]) => of === epoch && batch >= number)) pending = undefined;
      else pending = { ...pending, epoch: undefined };
    }
    return taken;
  };

  /** Changes a record, unless somebody else owns it by now. */
  const change = async (at: Place, step: (record: SpoolRecord) => SpoolRecord): Promise<boolean> => {
    let next: SpoolRecord | undefined;
    await store.updateRecord(spoolRecordName(at.place), (bytes) => {
      const present = decodeSpool(bytes);
      next = undefined;
      if (present?.epoch !== at.epoch) return undefined;
      next = step(present);
      return next === present ? undefined : encodeSpool(next);
    });
    if (next === undefined) return false;
    at.record = next;
    return true;
  };

  const giveUp = (at: Place): void => {
    if (own === at) own = undefined;
    left = left.filter((one) => one !== at);
  };

  const changeAll = async (step: (record: SpoolRecord) => SpoolRecord): Promise<void> => {
    for (const at of [...left, ...(own ? [own] : [])]) if (!(await change(at, step))) giveUp(at);
  };

  /** Writes what waits in memory. Each batch is taken in once, however often it is written. */
  const write = async (): Promise<void> => {
    for (let tries = 0; tries < 3; tries += 1) {
      if (pending === undefined && fresh.length === 0 && Object.keys(lost).length === 0) return;
      const at = await open();
      if (pending === undefined) {
        pending = { number: at.record.batch + 1, epoch: at.epoch, windows: fresh, drop: lost };
        fresh = [];
        lost = {};
      } else if (pending.epoch === undefined) {
        pending = { ...pending, number: at.record.batch + 1, epoch: at.epoch };
      }
      const batch = pending;
      if (await change(at, (record) => fit(takeIn(record, batch, join), join))) pending = undefined;
      else giveUp(at);
    }
  };

  /** Keeps what waits in memory small, while the store cannot be written. */
  const trim = (): void => {
    const coarser = coarsen(fresh, join, MOST_IN_MEMORY);
    fresh = coarser.slice(-MOST_IN_MEMORY);
    lost = addLosses(lost, { disk_full: coarser.length - fresh.length });
  };

  /** Lets other runs have records: what is in them goes with them. */
  const leave = async (places: readonly Place[]): Promise<void> => {
    if (places.length === 0) return;
    const isEmpty = new Map(places.map(({ place, record }) => [place, isDone(record)]));
    await changeIndex(store, (index) => ({
      ...index,
      owners: index.owners.map((owner, place) => {
        if (owner !== run || !isEmpty.has(place)) return owner;
        return isEmpty.get(place) === true ? null : CLOSED;
      }),
    }));
  };

  return {
    open: () => inTurn(async () => void (await open())),
    dev: () => dev,
    journal: (windows, drop = {}) => {
      fresh = [...fresh, ...windows];
      lost = addLosses(lost, drop);
      return inTurn(() =>
        write().catch((error: unknown) => {
          trim();
          throw error;
        }),
      );
    },
    seal: (head) =>
      inTurn(async () => {
        await write();
        const sentMs = platform.now();
        await open();
        await changeAll((record) =>
          record.open.length === 0 ? record : seal(record, head(dev ?? ''), sentMs),
        );
      }),
    sealed: () => [...left, ...(own ? [own] : [])].flatMap(({ record }) => record.sealed),
    waiting: () =>
      [...left, ...(own ? [own] : [])].reduce((sum, { record }) => sum + record.open.length, 0) +
      fresh.length +
      (pending?.windows.length ?? 0),
    acknowledge: (gone, drop = {}) =>
      inTurn(async () => {
        const names = new Set(gone.map(({ epoch, seq }) => `${epoch} ${seq}`));
        const isGone = ({ epoch, seq }: Sealed): boolean => names.has(`${epoch} ${seq}`);
        await changeAll((record) => forget(record, isGone, record.epoch === own?.epoch ? drop : {}));
        const empty = left.filter(({ record }) => isDone(record));
        left = left.filter((at) => !empty.includes(at));
        await leave(empty);
      }),
    strip: (alter) =>
      inTurn(async () => {
        fresh = fresh.map(alter);
        if (pending !== undefined) pending = { ...pending, windows: pending.windows.map(alter) };
        await changeAll((record) => {
          const kept = record.sealed.filter((one) =>
            windowsOf(one).every((window) => JSON.stringify(alter(window)) === JSON.stringify(window)),
          );
          const gone = record.sealed.filter((one) => !kept.includes(one));
          const drop = { consent: gone.reduce((sum, one) => sum + windowsOf(one).length, 0) };
          return {
            ...record,
            open: record.open.map(alter),
            sealed: kept,
            drop: addLosses(record.drop, drop),
          };
        });
      }),
    wipe: () =>
      inTurn(async () => {
        fresh = [];
        pending = undefined;
        lost = {};
        own = undefined;
        left = [];
        dev = undefined;
        const index = decodeIndex(await store.readRecord(INDEX_RECORD));
        if (index.dev === undefined && index.owners.length === 0) return index.forget;
        let places = 0;
        const { forget: names } = await changeIndex(store, (present) => {
          places = present.owners.length;
          const more = present.dev === undefined ? [] : [present.dev];
          return {
            owners: present.owners.map(() => null),
            forget: [...new Set([...present.forget, ...more])],
          };
        });
        for (let place = 0; place < places; place += 1) {
          await store.updateRecord(spoolRecordName(place), (bytes) =>
            decodeSpool(bytes) === undefined ? undefined : new Uint8Array(),
          );
        }
        return names;
      }),
    toForget: () => inTurn(async () => decodeIndex(await store.readRecord(INDEX_RECORD)).forget),
    forgotten: (name) =>
      inTurn(async () => {
        await changeIndex(store, (index) => ({
          ...index,
          forget: index.forget.filter((one) => one !== name),
        }));
      }),
    close: () =>
      inTurn(async () => {
        await write();
        const places = [...left, ...(own ? [own] : [])];
        own = undefined;
        left = [];
        await leave(places);
      }),
  };
}

function isDone({ open, sealed }: SpoolRecord): boolean {
  return open.length + sealed.length === 0;
}
