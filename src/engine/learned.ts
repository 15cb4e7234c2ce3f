/** What was learned about running a model on this machine, kept in the store so that a restart starts warm. */
import type { ModelSource, Placement } from '../core/backend.ts';
import { fromUtf8, toHex, toUtf8 } from '../core/bytes.ts';
import type { Logger } from '../core/logger.ts';
import type { Platform } from '../core/platform.ts';
import type { Store } from '../core/store.ts';
import type { LanesRecord } from '../schedule/lanes.ts';

/** What was measured to decide how a model runs, in words. */
export interface Reasons {
  /** Why it runs where it does. */
  readonly placementReason?: string;
  /** Why it has so many threads. */
  readonly threadsReason?: string;
}

/** Picks the reasons out. */
export function reasonsOf({ placementReason, threadsReason }: Reasons): Reasons {
  return {
    ...(placementReason !== undefined && { placementReason }),
    ...(threadsReason !== undefined && { threadsReason }),
  };
}

/** What is remembered. */
export interface Learned extends Reasons {
  readonly placement: Placement;
  readonly intraOpThreads: number;
  readonly unbatchable?: string;
  readonly lanes: LanesRecord;
}

/** The page of one model in the store. */
export interface Notebook {
  /** What is written there; `undefined` for a model that is new, has changed, or runs elsewhere now. */
  readonly learned: Learned | undefined;
  /** Writes soon. A store that cannot take it loses nothing but time at the next start. */
  write(learned: Learned): void;
  /** Resolves when everything was written. */
  settled(): Promise<void>;
}

/** Where a model is known by its content, and how it is run; a change of either starts a new page. */
export interface NotebookOptions {
  readonly device: unknown;
  readonly placement: string;
  readonly intraOpThreads?: number | 'auto' | undefined;
  readonly maxBatch?: number | undefined;
  readonly tolerance?: unknown;
}

const FORMAT = 1;
/** Models that come as more bytes than this have no page. */
const HASHED_BYTES = 2 ** 24;

/** Opens the page of a model. */
export async function createNotebook(
  parts: { readonly platform: Platform; readonly store: Store; readonly logger: Logger },
  source: ModelSource,
  options: NotebookOptions,
): Promise<Notebook> {
  const { platform, store, logger } = parts;
  const name = await pageOf(platform, source, options).catch(() => undefined);
  if (name === undefined) return { learned: undefined, write: () => {}, settled: async () => {} };
  const text = await store.readRecord(name).catch(() => undefined);
  let writing: Promise<unknown> = Promise.resolve();
  return {
    learned: text && parseLearned(text),
    write: (learned) => {
      const content = toUtf8(JSON.stringify({ format: FORMAT, ...learned }));
      writing = store
        .updateRecord(name, () => content)
        .catch((error: unknown) => {
          logger.debug({ err: error }, 'What was learned about a model could not be kept.');
        });
    },
    settled: async () => void (await writing),
  };
}

async function pageOf(
  platform: Platform,
  source: ModelSource,
  { device, placement, intraOpThreads, maxBatch, tolerance }: NotebookOptions,
): Promise<string | undefined> {
  const { files, hardware } = platform;
  // Where hashing is not native, it would cost more than is won; and it blocks the thread.
  if (files === undefined || hardware === undefined) return undefined;
  if (source.path === undefined && source.bytes.length > HASHED_BYTES) return undefined;
  const content =
    source.path === undefined
      ? hashOf(platform, source.bytes)
      : `${source.path} ${await files.stamp(source.path)}`;
  const how = JSON.stringify([content, hardware, device, placement, intraOpThreads, maxBatch, tolerance]);
  return `learned-${hashOf(platform, toUtf8(how)).slice(0, 32)}`;
}

function hashOf(platform: Platform, bytes: Uint8Array): string {
  const hash = platform.createSha256();
  hash.update(bytes);
  return toHex(hash.digest());
}

/** Reads a page. Whatever does not look right is forgotten: it can be measured again. */
function parseLearned(text: Uint8Array): Learned | undefined {
  try {
    const { format, ...page } = JSON.parse(fromUtf8(text)) as { format: number } & Learned;
    const isPlaced =
      page.placement === 'inline' || page.placement === 'worker' || page.placement === 'process';
    const texts: readonly unknown[] = [page.placementReason, page.threadsReason, page.unbatchable];
    const areTexts = texts.every((each) => each === undefined || typeof each === 'string');
    const isWhole = format === FORMAT && isPlaced && isCount(page.intraOpThreads) && areTexts;
    return isWhole && areLanes(page.lanes) ? page : undefined;
  } catch {
    return undefined;
  }
}

function areLanes(lanes: unknown): boolean {
  return (
    typeof lanes === 'object' &&
    lanes !== null &&
    Object.values(lanes).every(({ cost, cap }: LanesRecord[string]) => {
      const rows = [cost.sums, ...cost.sizes, [cost.spread]];
      return (
        isCount(cap) &&
        cost.sums.length === 5 &&
        cost.sizes.every(
          ([samples, seen, ms, ...rest]) => isCount(samples) && isCount(seen) && ms > 0 && rest.length === 0,
        ) &&
        rows.flat().every((value) => Number.isFinite(value) && value >= 0)
      );
    })
  );
}

function isCount(value: unknown): boolean {
  return Number.isSafeInteger(value) && (value as number) >= 1;
}
