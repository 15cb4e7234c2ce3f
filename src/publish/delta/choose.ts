/** Picks a way to write each tensor. Probabilities are shared by all tensors of a kind, so the picks depend on each other. */
import { NUMBERS_PER_BLOCK, UPDATES_PER_BLOCK, type FrequencyTable } from '../../update/delta/head.ts';
import { tableClass, type Candidate } from './candidates.ts';
import {
  bitsByCell,
  ownBits,
  sharedBits,
  sumCounts,
  tableBytes,
  toCounts,
  toTable,
  type Counts,
} from './counts.ts';
import { groupBy } from './group.ts';
import { factorBits } from './low-rank.ts';
import { sideSymbols } from './scales.ts';

/** A way to write a tensor, with what it costs besides its symbols. */
export interface Option {
  readonly candidate: Candidate;
  readonly kind: string;
  /** Raw bits, side block, what every block and segment takes. */
  readonly fixedBits: number;
}

/** What a tensor becomes. */
export interface Picked extends Option {
  /** Context of all numbers, where that is constant. */
  readonly context: number;
}

/** Bytes that a block takes besides its symbols: length, hash, states, number of words. */
const BLOCK_BYTES = 46;
const SEGMENT_BYTES = 12;
/** Bytes that a tensor takes besides itself, if it is not coded. */
const PLAIN_BYTES = 8;
/** Picks and probabilities in turns. */
const ROUNDS = 3;
/** Ways of a tensor that are looked at again with shared probabilities, besides those with a single context. */
const KEPT = 5;

/** Reckons the costs of candidates and keeps the best ones. */
export function toOptions(candidates: readonly Candidate[]): readonly Option[] {
  return candidates
    .map((candidate) => ({ candidate, kind: tableClass(candidate), fixedBits: fixedBitsOf(candidate) }))
    .map((option) => ({
      option,
      bits: option.fixedBits + ownBits(option.candidate.counts, option.candidate.alphabet),
    }))
    .sort((a, b) => a.bits - b.bits)
    .filter(({ option }, i) => i < KEPT || option.candidate.context === 'constant')
    .map(({ option }) => option);
}

function fixedBitsOf({ mode, scales, parts: { gains, lowRank, next }, rawBits, rows }: Candidate): number {
  const blocks = Math.ceil(next.length / (mode === 'update' ? UPDATES_PER_BLOCK : NUMBERS_PER_BLOCK));
  const side = scales ? ownBits(countsOf(sideSymbols(scales)), 256) : 0;
  const sideBytes = scales || gains ? BLOCK_BYTES + (gains ? 4 * rows : 0) : 0;
  const factors = lowRank ? factorBits(lowRank) + 8 * BLOCK_BYTES : 0;
  return rawBits + side + factors + 8 * (blocks * BLOCK_BYTES + sideBytes + SEGMENT_BYTES);
}

/** Counts symbols of one context. */
export function countsOf(symbols: Uint8Array): Counts {
  const dense = new Uint32Array(256);
  for (const symbol of symbols) dense[symbol] = (dense[symbol] as number) + 1;
  return toCounts(dense);
}

/** A tensor whose options are to be chosen from. */
export interface Choice {
  readonly options: readonly Option[];
  readonly sizeBytes: number;
}

/**
 * Picks for each tensor the option that costs least, `undefined` where its plain bytes do. Many contexts are worth their
 * probabilities only in models that are not small: a single one for each tensor is the alternative.
 */
export function choose(tensors: readonly Choice[]): readonly (Picked | undefined)[] {
  const isConstant = ({ candidate }: Option): boolean => candidate.context === 'constant';
  const rich = choosePicks(tensors);
  const plain = choosePicks(
    tensors.map(({ options, sizeBytes }) => ({ options: options.filter(isConstant), sizeBytes })),
  );
  return plain.bits < rich.bits ? plain.picks : rich.picks;
}

interface Outcome {
  readonly picks: readonly (Picked | undefined)[];
  /** What they take, tables included. */
  readonly bits: number;
}

function choosePicks(tensors: readonly Choice[]): Outcome {
  // At first, every kind that a tensor could have is heard.
  let tables = tablesOf(
    tensors.flatMap(({ options }) => [
      ...new Map([...options].reverse().map((option) => [option.kind, guess(option)])).values(),
    ]),
  );
  let picked: Outcome = { picks: [], bits: 0 };
  for (let round = 0; round < ROUNDS; round += 1) {
    const costs = new Map([...tables].map(([kind, table]) => [kind, bitsByCell(table)]));
    const savedBits = new Map<string, number>();
    let bits = 0;
    const all = tensors.map(({ options, sizeBytes }) => {
      const plainBits = 8 * (sizeBytes + PLAIN_BYTES);
      const best = cheapest(options, costs);
      bits += plainBits;
      if (best === undefined || best.bits >= plainBits) return undefined;
      const { kind } = best.pick;
      savedBits.set(kind, (savedBits.get(kind) ?? 0) + plainBits - best.bits);
      return best.pick;
    });
    tables = tablesOf(all.filter((pick) => pick !== undefined));
    // A table has to earn the bytes that it takes itself.
    for (const [kind, table] of [...tables]) {
      const netBits = (savedBits.get(kind) ?? 0) - 8 * tableBytes(table);
      if (netBits > 0) bits -= netBits;
      else tables.delete(kind);
    }
    picked = { picks: all.map((pick) => (pick && tables.has(pick.kind) ? pick : undefined)), bits };
  }
  return picked;
}

function guess(option: Option): Picked {
  return { ...option, context: option.candidate.level };
}

function cheapest(
  options: readonly Option[],
  costs: ReadonlyMap<string, Float32Array>,
): { readonly pick: Picked; readonly bits: number } | undefined {
  let best: { readonly pick: Picked; readonly bits: number } | undefined;
  for (const option of options) {
    const { candidate, kind, fixedBits } = option;
    const byCell = costs.get(kind);
    if (byCell === undefined) continue;
    const { alphabet, counts, context } = candidate;
    const contexts = context === 'constant' ? byCell.length / alphabet : 1;
    for (let at = 0; at < contexts; at += 1) {
      const bits = fixedBits + sharedBits(counts, byCell, at * alphabet);
      if (best === undefined || bits < best.bits) best = { pick: { ...option, context: at }, bits };
    }
  }
  return best;
}

/** Makes the tables of what was picked, by kind. */
export function tablesOf(picks: readonly Picked[]): Map<string, FrequencyTable> {
  const kinds = groupBy(picks, ({ kind }) => kind);
  return new Map(
    [...kinds].map(([kind, members]) => {
      const { alphabet } = (members[0] as Picked).candidate;
      const parts = members.map(({ candidate, context }) => ({
        counts: candidate.counts,
        shift: candidate.context === 'constant' ? context * alphabet : 0,
      }));
      return [kind, toTable(sumCounts(parts, 64 * alphabet), alphabet)];
    }),
  );
}
