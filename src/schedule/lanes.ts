import type { TensorMap } from '../core/backend.ts';
import type { Signature } from '../core/signature.ts';
import type { Tensor } from '../core/tensor.ts';
import { createBatchCap, type BatchCap } from './batch-cap.ts';
import { createCost, type Cost, type CostRecord } from './cost.ts';
import type { Job } from './job.ts';
import { createLine, type Line } from './line.ts';

/** Calls of one model whose feeds differ only in the first axis, so that they can share a batch. */
export interface Lane {
  /** Shapes of the feeds without the first axis; '' where the model fixes them. */
  readonly key: string;
  readonly line: Line<Job>;
  readonly cost: Cost;
  readonly cap: BatchCap;
  /** Samples that wait in the line. */
  samples: number;
  /** Batches that failed and are tried again in parts, before anything else. */
  readonly retries: Job[][];
  /** Monotonic time at which one of its batches was last sent off. */
  takenMs: number | undefined;
  /** Whether a real batch was compared with a solo run. */
  isVerified: boolean;
}

/** The lanes of one model. */
export interface Lanes {
  /** Lane for feeds of these shapes. */
  of(feeds: TensorMap): Lane;
  all(): Iterable<Lane>;
  /** Learned costs by lane, for the store. */
  toRecord(): LanesRecord;
}

/** Learned costs by lane key. */
export type LanesRecord = Readonly<Record<string, { readonly cost: CostRecord; readonly cap: number }>>;

/** Options of {@link createLanes}. */
export interface LanesOptions {
  readonly maxSamples: number;
  readonly maxRunMs: number;
  readonly record?: LanesRecord | undefined;
}

/** Idle lanes that are remembered, with what they have learned. */
const LANES_KEPT = 64;

/** Creates the lanes of a model. */
export function createLanes({ inputs }: Signature, options: LanesOptions): Lanes {
  const lanes = new Map<string, Lane>();
  const isFixed = inputs.every(
    ({ shape }) => shape !== null && shape.slice(1).every((size) => typeof size === 'number'),
  );

  const open = (key: string): Lane => {
    const record = options.record?.[key];
    const cost = createCost(record?.cost);
    const lane: Lane = {
      key,
      line: createLine(),
      cost,
      cap: createBatchCap(cost, options.maxSamples, options.maxRunMs, record?.cap),
      samples: 0,
      retries: [],
      takenMs: undefined,
      isVerified: false,
    };
    if (lanes.size >= LANES_KEPT) dropIdle(lanes);
    lanes.set(key, lane);
    return lane;
  };

  const only = isFixed ? open('') : undefined;

  return {
    of: (feeds) => {
      if (only !== undefined) return only;
      let key = '';
      for (const { name } of inputs) {
        const { shape } = feeds[name] as Tensor;
        for (let axis = 1; axis < shape.length; axis += 1) key += `${shape[axis]} `;
        key += '/';
      }
      const known = lanes.get(key);
      if (known === undefined) return open(key);
      // The map is in order of last use.
      lanes.delete(key);
      lanes.set(key, known);
      return known;
    },
    all: () => lanes.values(),
    toRecord: () =>
      Object.fromEntries(
        [...lanes.values()]
          .filter(({ cost }) => cost.line().perSampleMs + cost.line().perBatchMs > 0)
          .map(({ key, cost, cap }) => [key, { cost: cost.toRecord(), cap: cap.samples }]),
      ),
  };
}

function dropIdle(lanes: Map<string, Lane>): void {
  for (const [key, lane] of lanes) {
    if (lanes.size < LANES_KEPT) return;
    if (lane.samples === 0 && lane.retries.length === 0 && lane.line.length === 0) lanes.delete(key);
  }
}
