import { createSha256 } from '../../../src/core/hash.ts';
import { toUtf8 } from '../../../src/core/bytes.ts';
import { sha256Hex } from '../../../src/trust/keys.ts';
import type { TrialRules } from '../../../src/update/plan.ts';
import type { Slot } from '../../../src/update/slot.ts';

export const rules: TrialRules = {
  minInferences: 20,
  soakS: 60,
  strikes: 2,
  loadTimeoutS: 20,
  maxErrorBp: 200,
  maxP95Percent: 200,
  maxMemoryMiB: 0,
  graceS: 10,
};

/** The release of this number, of one file. */
export function slotOf(seq: number): Slot {
  const sha256 = sha256Hex({ createSha256 }, toUtf8(`release ${seq}`));
  return {
    release: { path: `models/m/${seq}/m.onnx`, sha256, length: 100 + seq, seq, version: `${seq}.0.0` },
    file: { sha256, length: 100 + seq },
  };
}

export const hashOf = (seq: number): string => slotOf(seq).release.sha256;

/** What a rollout says when it stages. */
export const terms = (plan = 'r-1', retryNonce = 0, more: Partial<TrialRules> = {}) => ({
  plan,
  rules: { ...rules, ...more },
  retryNonce,
});
