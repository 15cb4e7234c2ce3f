import { ENOUGH, type Cost } from './cost.ts';

/** How many samples a batch may have. */
export interface BatchCap {
  readonly samples: number;
  /** Whether it has found its size, for now. */
  readonly isSettled: boolean;
  /** Looks again, after a batch of `samples` was observed. Those less than half as large as allowed tell nothing. */
  review(samples: number): void;
}

/** Gain in samples per millisecond, relative, for which a doubling is kept. */
const WORTHWHILE = 0.05;
/** Full batches after which a doubling is tried again: noise may have hidden that it pays, and machines change. */
const RETRY_AFTER = 32;
/** The pause doubles every time that it does not pay, up to this. */
const RETRY_AFTER_AT_MOST = 4096;

/**
 * Creates the cap of a lane. It starts at one sample and doubles as long as that makes samples cheaper by more than
 * 5 %; where a doubling makes them dearer, it is taken back.
 * @param limit - the most that it may become.
 * @param maxRunMs - no batch is meant to take longer than this.
 */
export function createBatchCap(cost: Cost, limit: number, maxRunMs: number, start = 1): BatchCap {
  let samples = Math.min(limit, Math.max(1, start));
  let isSettled = false;
  /** What larger batches are compared with; a cap that was learned says that smaller ones are known. */
  let smallest = start > 1 ? 1 : Infinity;
  let fullBatches = 0;
  let retryAfter = RETRY_AFTER;
  const rate = (size: number): number => size / cost.predict(size);

  /** Relative gain of doubling a size, by the fitted line. */
  const promise = (size: number): number => {
    const { perSampleMs, perBatchMs } = cost.line();
    const each = (batch: number): number => perSampleMs + perBatchMs / batch;
    return each(size) / each(2 * size) - 1;
  };

  return {
    get samples() {
      return samples;
    },
    get isSettled() {
      return isSettled;
    },
    review: (size) => {
      if (size * 2 <= samples) return;
      if (isSettled) {
        fullBatches += 1;
        isSettled = fullBatches < retryAfter;
        return;
      }
      if (cost.observations(size) <= ENOUGH) return;
      smallest = Math.min(smallest, size);
      const gain = size === smallest ? 1 : rate(size) / rate(Math.max(smallest, size >> 1)) - 1;
      // A call of many samples may be larger than the cap by itself.
      if (gain >= 0 && cost.predict(size) <= maxRunMs) samples = Math.max(samples, Math.min(limit, size));
      // Where noise hides the gain of the last doubling, all that was seen together may still promise one.
      const isWorth = gain > WORTHWHILE || (gain >= 0 && promise(samples) > WORTHWHILE);
      if (isWorth && samples * 2 <= limit && cost.predict(samples * 2) <= maxRunMs) {
        samples *= 2;
        retryAfter = RETRY_AFTER;
        return;
      }
      if (gain < 0 && size <= samples) samples = Math.max(1, samples >> 1);
      isSettled = true;
      fullBatches = 0;
      retryAfter = Math.min(2 * retryAfter, RETRY_AFTER_AT_MOST);
    },
  };
}
