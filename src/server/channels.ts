/** The plans of every channel, as they stand in the metadata of the role `rollout`. */

import { ServerError } from '../core/errors.ts';
import { readSigned, toSignedPlan } from '../publish/rollout.ts';
import type { Targets } from '../trust/metadata.ts';
import { isFields } from '../trust/parse.ts';
import type { SignedPlan } from '../update/plan.ts';

/** Plans by channel. */
export type Channels = Readonly<Record<string, readonly SignedPlan[]>>;

/** Plans of one channel; none for one that is not there, even if `Object` has its name. */
export function plansOf(channels: Channels, channel: string): readonly SignedPlan[] {
  return Object.hasOwn(channels, channel) ? (channels[channel] ?? []) : [];
}

/** Reads the plans out of the `rollout` role's metadata. They are what was signed, and not checked again. */
export function channelsOf(rollout: Targets): Channels {
  return Object.fromEntries(
    Object.entries(rollout.targets).map(([path, { custom }]) => {
      const plans: unknown = custom?.['plans'];
      return [
        path.slice('rollout/'.length, -'.json'.length),
        Array.isArray(plans) ? (plans as SignedPlan[]) : [],
      ];
    }),
  );
}

/**
 * Reads plans that come from elsewhere, in their one form: what is unknown or at its default is left out.
 * @throws {@link ServerError} `ERR_INLAY_REFUSED`
 */
export function readChannels(value: unknown): Channels {
  if (!isFields(value)) return malformed();
  return Object.fromEntries(
    Object.entries(value).map(([channel, plans]) => {
      const list: readonly unknown[] = Array.isArray(plans) ? plans : malformed();
      return [channel, list.map((plan) => toSignedPlan(readSigned(plan as SignedPlan)))];
    }),
  );
}

function malformed(): never {
  throw new ServerError('ERR_INLAY_REFUSED', 'Plans are an object of channels, each a list of plans.');
}
