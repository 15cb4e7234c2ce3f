import { ServerError } from '../core/errors.ts';
import type { Plan, PlanEntry } from '../update/plan.ts';

/**
 * Starts, raises or completes the rollout of a release. Pure: the present plans are left alone.
 *
 * Within one rollout the share only rises, so that a device that has the candidate keeps it. Another candidate starts
 * a new rollout that supersedes an open one; naming an earlier release is how a fleet goes back. Devices outside the
 * share run the last release that was completed.
 * @param percent share in (0, 100], at most two decimals; 100 completes the rollout.
 * @param newSalt gives 16 random hex digits; called once per new rollout.
 * @throws {@link ServerError} `ERR_INLAY_REFUSED` if the share falls or is none; `RangeError` if the salt is none.
 */
export function setRollout(
  plans: readonly Plan[],
  release: PlanEntry & { readonly model: string },
  percent: number,
  newSalt: () => string,
): Plan[] {
  const { model, path, sha256, length, seq, version } = release;
  const bp = toBasisPoints(percent);
  const share = { bp, state: bp === 10_000 ? 'complete' : 'ramp' } as const;
  const present = plans.find((plan) => plan.model === model);
  if (present?.cand.path === path && present.cand.sha256 === sha256) {
    if (bp < present.bp) {
      throw new ServerError(
        'ERR_INLAY_REFUSED',
        `The share of ${model} ${version} cannot fall from ${present.bp / 100} % to ${percent} %; ` +
          'to go back, roll out the release before it.',
        { details: { model, version, percent } },
      );
    }
    return plans.map((plan) => (plan === present ? { ...present, ...share } : plan));
  }
  const salt = newSalt();
  if (!/^[0-9a-f]{16}$/.test(salt))
    throw new RangeError('The salt of a rollout is 16 lower-case hex digits.');
  const started: Plan = {
    id: `r-${salt}`,
    model,
    ...share,
    salt,
    base: present === undefined ? null : present.state === 'complete' ? present.cand : present.base,
    cand: { path, sha256, length, seq, version },
  };
  return present ? plans.map((plan) => (plan === present ? started : plan)) : [...plans, started];
}

function toBasisPoints(percent: number): number {
  const bp = Math.round(percent * 100);
  if (!(bp >= 1 && bp <= 10_000) || Math.abs(percent * 100 - bp) > 1e-6) {
    throw new ServerError(
      'ERR_INLAY_REFUSED',
      `A share of ${percent} % cannot be rolled out; use 0.01 to 100 with at most two decimals.`,
      { details: { percent } },
    );
  }
  return bp;
}
