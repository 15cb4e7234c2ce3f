/** Random numbers that come out the same again. */

/** Creates uniform numbers in [0, 1) from a seed (mulberry32): for plays that are to come out the same again. */
export function createRandom(seed: number): () => number {
  let state = Math.trunc(seed);
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Draws the number of hits among `n` trials, in steps of one hit: cheap where hits are rare. */
export function drawBinomial(n: number, rate: number, random: () => number): number {
  if (rate <= 0) return 0;
  if (rate > 0.5) return n - drawBinomial(n, 1 - rate, random);
  const log = Math.log1p(-rate);
  let hits = -1;
  for (let at = 0; at <= n; hits += 1) at += Math.floor(Math.log(1 - random()) / log) + 1;
  return hits;
}

/**
 * Draws `count` of `all` things, `marked` of which are marked, without putting any back.
 * @returns how many of them are marked: a hypergeometric number.
 */
export function drawMarked(all: number, marked: number, count: number, random: () => number): number {
  let left = marked;
  for (let drawn = 0; drawn < count; drawn += 1) {
    if (random() * (all - drawn) < left) left -= 1;
  }
  return marked - left;
}
