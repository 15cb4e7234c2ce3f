/** Sends samples of calls to a release that answers nobody, and finds out whether it answers alike. */

import type { TensorMap } from '../core/backend.ts';
import type { Platform } from '../core/platform.ts';
import { Tensor } from '../core/tensor.ts';
import { isAlike, USUAL_TOLERANCE } from '../update/alike.ts';
import type { Target } from '../update/follower.ts';
import type { Serving } from './serving.ts';

/** Hears what became of calls in the shadow. */
export interface ShadowObserver {
  /** @param ms - how long its run took, milliseconds. */
  shadow(outcome: 'alike' | 'unlike' | 'failed', ms: number): void;
}

/** One call that is to be repeated in the shadow. */
export interface Sample {
  /** Takes what the caller gets, before the caller can change it. */
  answered(outputs: TensorMap): void;
  /** There is nothing to compare with. */
  dropped(): void;
}

/** Repeats calls in the shadow. */
export interface Mirror {
  /** Takes a copy of the feeds of a call; `undefined` for one that is not repeated. */
  take(feeds: TensorMap, outputs: readonly string[] | undefined): Sample | undefined;
  /** Takes no more, gives the call that is under way up, and resolves when it has settled. Safe to call twice. */
  stop(): Promise<void>;
}

/** Largest feeds, and largest outputs, that are copied: more would keep the caller's thread for longer than some frames. */
const MOST_FEED_BYTES = 2 ** 24;
const MOST_OUTPUT_BYTES = 2 ** 20;
/** Every other call goes first. */
const LAST = -100;

/** What {@link createMirror} works with. */
export interface MirrorParts {
  readonly platform: Pick<Platform, 'monotonicMs' | 'setTimer'>;
  readonly serving: Pick<Serving, 'run'>;
  readonly target: Pick<Target, 'golden' | 'watch'>;
  /** Share of the calls, basis points. */
  readonly sampleBp: number;
  readonly observer: ShadowObserver | undefined;
}

/**
 * Creates a mirror. The first call is taken, and then so many of them, at equal distances, as were asked for; while one is
 * under way none is. Calls with more than 16 MiB of feeds or 1 MiB of outputs are not repeated.
 */
export function createMirror({ platform, serving, target, sampleBp, observer }: MirrorParts): Mirror {
  const { watch, golden } = target;
  const tolerance = golden?.tolerance ?? USUAL_TOLERANCE;
  let creditBp = 10_000 - sampleBp;
  let isBusy = false;
  const stops = new AbortController();
  let underway: Promise<void> = Promise.resolve();

  const repeat = async (
    feeds: TensorMap,
    expected: TensorMap,
    outputs: readonly string[] | undefined,
  ): Promise<void> => {
    const beganMs = platform.monotonicMs();
    const call = { priority: LAST, outputs, transfer: true, signal: stops.signal };
    try {
      const actual = await serving.run(feeds, call, () => {});
      const ms = platform.monotonicMs() - beganMs;
      observer?.shadow(isAlike(actual, expected, tolerance) ? 'alike' : 'unlike', ms);
      watch.answered(ms, actual);
    } catch (error) {
      if (stops.signal.aborted) return;
      observer?.shadow('failed', platform.monotonicMs() - beganMs);
      watch.failed(error);
    } finally {
      isBusy = false;
    }
  };

  return {
    take: (feeds, outputs) => {
      creditBp = Math.min(10_000, creditBp + sampleBp);
      if (creditBp < 10_000 || isBusy || stops.signal.aborted || bytesOf(feeds) > MOST_FEED_BYTES)
        return undefined;
      creditBp = 0;
      isBusy = true;
      const copies = copyOf(feeds);
      const dropped = (): void => {
        isBusy = false;
      };
      return {
        answered: (answers) => {
          if (bytesOf(answers) > MOST_OUTPUT_BYTES) {
            dropped();
            return;
          }
          const expected = copyOf(answers);
          // The caller has its answer first.
          platform.setTimer(() => {
            if (!stops.signal.aborted) underway = repeat(copies, expected, outputs);
          }, 0);
        },
        dropped,
      };
    },
    stop: () => {
      stops.abort();
      return underway;
    },
  };
}

function bytesOf(tensors: TensorMap): number {
  return Object.values(tensors).reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
}

function copyOf(tensors: TensorMap): TensorMap {
  return Object.fromEntries(
    Object.entries(tensors).map(([name, { dtype, shape, data }]) => [
      name,
      new Tensor(dtype, shape, data.slice()),
    ]),
  );
}
