/**
 * Where somebody speaks, in milliseconds from the start.
 * @typedef {{ start: number, end: number }} Segment
 */

/** What counts as speech: the rules that Silero recommends. */
export const RULES = {
  /** Probability at which speech starts. */
  threshold: 0.5,
  /** How far below the threshold the probability must fall before speech may end. */
  hysteresis: 0.15,
  /** Shorter speech is dropped. */
  minSpeechMs: 250,
  /** Shorter pauses do not end speech. */
  minSilenceMs: 100,
  /** What a segment gains at either end; neighbours share what is between them. */
  paddingMs: 30,
};

/**
 * Turns the probability of speech in each window into segments, in order and apart from each other.
 * @param {number[]} probabilities One per window, without gaps.
 * @param {{ windowMs: number, durationMs: number } & Partial<typeof RULES>} options `durationMs` is the length of
 * the recording, whose last window may be incomplete.
 * @returns {Segment[]}
 */
export function findSegments(probabilities, options) {
  const rules = { ...RULES, ...options };
  const spoken = findSpeech(probabilities, rules).filter(({ start, end }) => end - start > rules.minSpeechMs);
  return pad(spoken, rules);
}

/** Speech ends where the probability fell, once it has stayed low for long enough. */
function findSpeech(probabilities, { windowMs, durationMs, threshold, hysteresis, minSilenceMs }) {
  const low = Math.max(threshold - hysteresis, 0.01);
  const segments = [];
  let start;
  let fell;
  for (const [index, probability] of probabilities.entries()) {
    const now = index * windowMs;
    if (probability >= threshold) {
      start ??= now;
      fell = undefined;
    } else if (start !== undefined && probability < low) {
      fell ??= now;
      if (now - fell < minSilenceMs) continue;
      segments.push({ start, end: fell });
      start = fell = undefined;
    }
  }
  return start === undefined ? segments : [...segments, { start, end: durationMs }];
}

function pad(segments, { paddingMs, durationMs }) {
  return segments.map(({ start, end }, index) => {
    const before = index === 0 ? start : (start - segments[index - 1].end) / 2;
    const after = index === segments.length - 1 ? durationMs - end : (segments[index + 1].start - end) / 2;
    return { start: start - Math.min(before, paddingMs), end: end + Math.min(after, paddingMs) };
  });
}
