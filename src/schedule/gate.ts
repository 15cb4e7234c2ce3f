/** Whether it pays to wait for callers that have just been answered. */

/** Remembers whether waiting for a cohort was worth it lately. */
export interface Gate {
  /** Whether to wait this time. */
  open(): boolean;
  /** Tells whether the cohort came back in time. */
  learn(cameBack: boolean): void;
}

/** Above this share of successes, waiting is the rule; below it, one time in {@link PROBE} it is tried. */
const WORTHWHILE = 0.5;
const PROBE = 64;
const NEWEST = 0.25;

/** Creates a gate that gives waiting a try. */
export function createGate(): Gate {
  let successes = 0.6;
  let asked = 0;
  return {
    open: () => {
      if (successes > WORTHWHILE) return true;
      asked += 1;
      return asked % PROBE === 0;
    },
    learn: (cameBack) => {
      successes += NEWEST * (Number(cameBack) - successes);
    },
  };
}
