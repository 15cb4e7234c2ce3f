/** What was learned about running a model on this machine, kept in the store so that a restart starts warm. */
import type { ModelSource, Placement } from '../core/backend.ts';
import { fromUtf8, toUtf8 } from '../core/bytes.ts';
import { digestHex } from '../core/digest.ts';
import type { Logger } from '../core/logger.ts';
import type { Platform } from '../core/platform.ts';
import type { Store } from '../core/store.ts';
import type { LanesRecord } from '../schedule/lanes.ts';
import { openPage } from './page.ts';

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
  readonly backend: string;
  readonly provider: string;
  readonly placement: Placement;
  readonly intraOpThreads: number;
  /** That others could not be tried for a reason that may pass: the next start tries them again. */
  readonly isProvisional?: boolean;
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

const FORMAT = 3;

/** Opens the page of a model. */
export async function createNotebook(
  parts: { readonly platform: Platform; readonly store: Store; readonly logger: Logger },
  source: ModelSource,
  options: NotebookOptions,
): Promise<Notebook> {
  const content = await stampOf(parts.platform, source).catch(() => undefined);
  if (content === undefined) return { learned: undefined, write: () => {}, settled: async () => {} };
  const { device, placement, intraOpThreads, maxBatch, tolerance } = options;
  const { hardware } = parts.platform;
  const how = [content, hardware, device, placement, intraOpThreads, maxBatch, tolerance];
  const page = openPage(parts, 'learned', how);
  const text = await page.read();
  return {
    learned: text && parseLearned(text),
    write: (learned) => {
      page.write(toUtf8(JSON.stringify({ format: FORMAT, ...learned })));
    },
    settled: page.settled,
  };
}

/** What tells a model from others and from its own past; `undefined` where that would cost more than is won. */
async function stampOf(platform: Platform, source: ModelSource): Promise<string | undefined> {
  const { files, hardware, digest } = platform;
  if (hardware === undefined) return undefined;
  if (source.path !== undefined) return `${source.path} ${await files?.stamp(source.path)}`;
  // Where hashing is not native, it takes as long as what was learned would save.
  return digest === undefined ? undefined : digestHex(platform, source.bytes);
}

/** Reads a page. Whatever does not look right is forgotten: it can be measured again. */
function parseLearned(text: Uint8Array): Learned | undefined {
  try {
    const { format, ...page } = JSON.parse(fromUtf8(text)) as { format: number } & Learned;
    const isPlaced =
      page.placement === 'inline' || page.placement === 'worker' || page.placement === 'process';
    const { backend, provider, placementReason = '', threadsReason = '', unbatchable = '' } = page;
    const texts: readonly unknown[] = [backend, provider, placementReason, threadsReason, unbatchable];
    const areTexts = texts.every((each) => typeof each === 'string');
    const isWhole =
      format === FORMAT &&
      typeof (page.isProvisional ?? false) === 'boolean' &&
      isPlaced &&
      isCount(page.intraOpThreads) &&
      areTexts;
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
