/** Plans in the one form in which they are signed. */

import { ServerError } from '../core/errors.ts';
import { readPlan, type Plan, type SignedPlan } from '../update/plan.ts';

/** Leaves out of a plan what is at its default. */
export function toSignedPlan(plan: Plan): SignedPlan {
  const { id, model, state, salt, bp, base, cand, trial, net, report, ...rest } = plan;
  const required = { id, model, state, salt, bp, base, cand };
  const usual = readSigned(required);
  const trialChanges = changesOf(trial, usual.trial);
  const netChanges = changesOf(net, usual.net);
  return {
    ...required,
    ...changesOf(rest, usual),
    ...(Object.keys(trialChanges).length > 0 && { trial: trialChanges }),
    ...(Object.keys(netChanges).length > 0 && { net: netChanges }),
    ...(report && { report: { everyS: report.everyS, ...(!report.first && { first: false }) } }),
  };
}

/**
 * Fills the defaults of a plan in.
 * @throws {@link ServerError} `ERR_INLAY_REFUSED` if it is malformed.
 */
export function readSigned(signed: SignedPlan): Plan {
  const plan = readPlan(signed);
  if (plan) return plan;
  throw new ServerError(
    'ERR_INLAY_REFUSED',
    `The plan of model ${JSON.stringify(String(signed.model).slice(0, 80))} is malformed; an option is out of its range.`,
  );
}

/** The one form of a plan: checked, and without what is at its default. */
export function normal(plan: SignedPlan): SignedPlan {
  return toSignedPlan(readSigned(plan));
}

/** Share that devices have reached by now, basis points, rounded up so that whoever began stays in. */
export function reachedBp({ fromBp, bp, startAt, durationS }: Plan, now: number | undefined): number {
  if (startAt === undefined || now === undefined) return bp;
  const passedMs = now - Date.parse(startAt);
  if (fromBp === bp) return passedMs < 0 && durationS === 0 ? 0 : bp;
  const passed =
    durationS === 0 ? Number(passedMs >= 0) : Math.min(1, Math.max(0, passedMs / (durationS * 1000)));
  return Math.min(bp, Math.ceil(fromBp + (bp - fromBp) * passed));
}

function changesOf<Fields extends object>(fields: Fields, usual: object): Partial<Fields> {
  const defaults = new Map<string, unknown>(Object.entries(usual));
  const changed = Object.entries(fields).filter(
    ([name, value]) => value !== undefined && JSON.stringify(value) !== JSON.stringify(defaults.get(name)),
  );
  return Object.fromEntries(changed) as Partial<Fields>;
}
