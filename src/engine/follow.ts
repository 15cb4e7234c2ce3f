import type { Platform } from '../core/platform.ts';
import type { CallWatch, Embedded, Follower, Opened, Target, Updater } from '../update/follower.ts';

import type { ModelTelemetry } from '../telemetry/model.ts';
import type { DownloadListener } from '../update/transfer.ts';
import { assertReplaces } from './replaces.ts';
import { testGolden, within } from './self-test.ts';
import { createMirror, type Mirror } from './mirror.ts';
import type { Serving } from './serving.ts';
import type { ManagedModel, Model } from './model.ts';

/** What {@link followReleases} does with releases. */
export interface FollowParts {
  readonly platform: Platform;
  /** Opens a release beside the present one, if there is one. */
  readonly open: (target: Target, present: Serving | undefined) => Promise<Serving>;
  /** Makes a model of the first release. */
  readonly manage: (serving: Serving) => ManagedModel;
  /** Finds the version that came with the app, if one did. */
  readonly embedded?: (() => Promise<Embedded>) | undefined;
  /** Starts what trying and running a release need; called when the first one is about to be there. */
  readonly prepare?: (() => void) | undefined;
  /** Counts opens, and what becomes of calls in the shadow. */
  readonly telemetry?: Pick<ModelTelemetry, 'recorder' | 'shadow'> | undefined;
  /** Hears of the first download. */
  readonly onDownload?: DownloadListener | undefined;
}

/** How long before the end of a download workers and processes are started, in milliseconds. */
const PREPARE_MS = 2000;

/**
 * Makes a model that answers calls with the release that this device should run, and moves on to others as its updater
 * says.
 *
 * A new release is opened, warmed up and tried with the golden inputs beside the present one; only then do calls move
 * over. Whatever fails before that leaves the present one in place.
 *
 * @throws {@link ModelError} `ERR_INLAY_MODEL_UNAVAILABLE` when there is no release to start with;
 * {@link StateError} `ERR_INLAY_CLOSED` when the Inlay is closed meanwhile.
 */
export async function followReleases(updater: Updater, name: string, parts: FollowParts): Promise<Model> {
  const { platform } = parts;
  const calls = createCallCounter(platform, () => mirror);
  let managed: ManagedModel | undefined;
  /** Repeats calls in the shadow, while there is one. */
  let mirror: Mirror | undefined;

  const openTried = async (target: Target): Promise<{ readonly serving: Serving; readonly ms: number }> => {
    const present = managed?.current();
    const beganMs = platform.monotonicMs();
    const serving = await parts.open(target, present);
    try {
      await testGolden((feeds) => serving.run(feeds, { priority: 100 }, () => {}), target.golden);
      if (present !== undefined)
        assertReplaces(name, present.signature, target.version ?? 'of the app', serving.signature);
    } catch (error) {
      // Why it does not work is worth more than why it cannot be released.
      await serving.close().catch(() => {});
      throw error;
    }
    return { serving, ms: platform.monotonicMs() - beganMs };
  };

  const follower: Follower = {
    open: async (target): Promise<Opened> => {
      const opening = openTried(target);
      // What came with the app is all that is left when nothing else opens in time.
      const { serving, ms } = await (target.slot === 'embedded'
        ? opening
        : within(
            platform,
            target.rules.loadTimeoutS,
            opening,
            (late) => void late.serving.close().catch(() => {}),
          ));
      let own: Mirror | undefined;
      return {
        enter: () => {
          const watched = calls.watch(serving, target.watch);
          if (managed === undefined) managed = parts.manage(watched);
          else managed.swap(watched);
          parts.telemetry?.recorder.opened(ms);
        },
        mirror: (sampleBp) => {
          own = createMirror({ platform, serving, target, sampleBp, observer: parts.telemetry });
          mirror = own;
        },
        discard: async () => {
          if (mirror === own) mirror = undefined;
          await own?.stop();
          await serving.close();
        },
      };
    },
    idleMs: calls.idleMs,
    failed: (error) => {
      managed?.updateFailed(error);
    },
  };

  await updater.join(follower, parts.embedded, foreseeEnd(parts));
  // Whoever joins answers calls, or else joining fails.
  const { model, closed } = managed as unknown as ManagedModel;
  void closed.then(() => {
    updater.leave(follower);
  });
  return model;
}

/**
 * Prepares for a release while the rest of it comes, once, as soon as that takes no longer than {@link PREPARE_MS} at the
 * speed so far: what is started earlier might give up waiting.
 */
export function foreseeEnd({
  platform,
  prepare,
  onDownload,
}: Pick<FollowParts, 'platform' | 'prepare' | 'onDownload'>): DownloadListener {
  let began: { readonly ms: number; readonly bytes: number } | undefined;
  let isPrepared = false;
  return (loadedBytes, totalBytes) => {
    const nowMs = platform.monotonicMs();
    began ??= { ms: nowMs, bytes: loadedBytes };
    const bytes = loadedBytes - began.bytes;
    const leftMs = ((nowMs - began.ms) * (totalBytes - loadedBytes)) / bytes;
    if (!isPrepared && bytes > 0 && leftMs < PREPARE_MS) {
      isPrepared = true;
      prepare?.();
    }
    onDownload?.(loadedBytes, totalBytes);
  };
}

/** Counts the calls of one model, whatever release answers them. */
function createCallCounter(
  { monotonicMs }: Platform,
  mirror: () => Mirror | undefined,
): {
  watch(serving: Serving, watch: CallWatch): Serving;
  idleMs(): number;
} {
  let inFlight = 0;
  let settledMs = monotonicMs();
  const settle = (): number => {
    inFlight -= 1;
    settledMs = monotonicMs();
    return settledMs;
  };
  return {
    idleMs: () => (inFlight > 0 ? 0 : monotonicMs() - settledMs),
    watch: (serving, { answered, failed }) => ({
      ...serving,
      run: (feeds, call, onSettled) => {
        const beganMs = monotonicMs();
        inFlight += 1;
        const sample = mirror()?.take(feeds, call.outputs);
        return serving.run(feeds, call, onSettled).then(
          (outputs) => {
            answered(settle() - beganMs, outputs);
            sample?.answered(outputs);
            return outputs;
          },
          (error: unknown) => {
            settle();
            sample?.dropped();
            failed(error);
            throw error;
          },
        );
      },
    }),
  };
}
