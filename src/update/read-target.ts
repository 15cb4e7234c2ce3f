import type { ModelSource } from '../core/backend.ts';
import type { DigestPlatform } from '../core/digest.ts';
import type { Blob, Store } from '../core/store.ts';
import type { Embedded, Golden, Target } from './follower.ts';
import { readGolden } from './golden.ts';
import { intactBlob } from './intact.ts';
import { DEFAULT_TRIAL } from './plan.ts';
import type { Slot, SlotName, SlotsState } from './slot.ts';
import type { Sync } from './sync.ts';

/** What {@link readTarget} works with. */
export interface ReadTargetParts {
  readonly model: string;
  readonly platform: DigestPlatform;
  readonly store: Store;
  readonly sync: Pick<Sync, 'isSigned'>;
}

/**
 * Reads what a slot holds. Slots are records that anything on the device might have changed, so what they name counts only
 * if the offline key signed it.
 * @param isVerified - whether its file was verified a moment ago, and need not be read for that again.
 * @returns `lost` when the file, or what it is to be tried with, is gone or damaged: a store may always lose things.
 */
export async function readTarget(
  { model, platform, store, sync }: ReadTargetParts,
  name: SlotName,
  slot: Slot,
  embedded: Embedded | undefined,
  isVerified: boolean,
): Promise<Omit<Target, 'watch'> | 'lost' | 'unsigned'> {
  const isOfApp = name === 'embedded' && embedded?.slot.file.sha256 === slot.file.sha256;
  const find = (): Promise<Blob | undefined> =>
    isVerified ? store.blob(slot.file.sha256) : intactBlob(platform, store, slot.file);
  const blob = isOfApp ? undefined : await find();
  if (!isOfApp && blob === undefined) return 'lost';
  if (!isOfApp && !isVerified) {
    const proof = slot.proof === undefined ? undefined : await store.blob(slot.proof);
    if (!(await sync.isSigned(model, slot.file, await proof?.bytes()))) return 'unsigned';
  }
  const { rules = DEFAULT_TRIAL, phase }: Partial<NonNullable<SlotsState['trial']>> =
    name === 'trial' ? slot : {};
  const isNew = phase === 'staged';
  let golden: Golden | undefined;
  if (isNew && slot.golden !== undefined) {
    const file = await intactBlob(platform, store, slot.golden);
    // Without it, nobody knows whether the release works.
    if (file === undefined) return 'lost';
    golden = { cases: readGolden(await file.bytes()), tolerance: slot.golden.tolerance };
  }
  return {
    slot: name,
    version: slot.release.version === '' ? undefined : slot.release.version,
    variant: slot.variant,
    source: blob === undefined ? await (embedded as Embedded).source() : await sourceOf(blob),
    golden,
    rules,
    isNew,
  };
}

async function sourceOf(blob: Blob): Promise<ModelSource> {
  return blob.path === undefined ? { bytes: await blob.bytes() } : { path: blob.path };
}
