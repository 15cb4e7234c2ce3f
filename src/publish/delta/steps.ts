/** What compact publish tells the encoder of patches. */

/** The grid that the update of a tensor was rounded onto. */
export interface UpdateStep {
  /** Every number is `fround(p + q * step)`, rounded to its type, with `q` in [-127, 127] and `p` the number of the base, or that times a gain. */
  readonly step: number;
  /** Of each row, where rows are the first axis. Absent: the base is taken as it is. */
  readonly gain?: Float32Array;
}

/** Steps by name of tensor. Tensors that are not listed were left as they are. */
export type UpdateSteps = ReadonlyMap<string, UpdateStep>;
