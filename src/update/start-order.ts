/** What a start of the app begins with, as far as that is for the plan to say. */

import type { Decision } from './decide.ts';
import type { Slots, Try } from './slots.ts';

/** What is tried at a start, best first. */
export interface StartOrder {
  readonly tries: readonly Try[];
  /** Whether a release is staged that waits to be offered a moment. */
  readonly hasStaged: boolean;
}

/**
 * Orders what a start may begin with. A trial that has answered goes on first, unless the plan that is known says otherwise;
 * another one comes beside the rest.
 * @param decide gives what the known plan wants; `undefined` where that cannot be told.
 */
export async function startOrder(
  tries: readonly Try[],
  slots: Pick<Slots, 'read' | 'revert'>,
  decide: () => Promise<Decision | undefined>,
): Promise<StartOrder> {
  if (!tries.some(({ name }) => name === 'trial')) return { tries, hasStaged: false };
  const next = await decide();
  const others = tries.filter(({ name }) => name !== 'trial');
  if (next?.kind === 'revert' && next.to !== 'base') {
    if (next.to === 'committed') await slots.revert(next.to);
    // The slots follow when it answers, with the first decision.
    const first = others.filter(({ name }) => name === next.to);
    return { tries: [...first, ...others.filter(({ name }) => name !== next.to)], hasStaged: false };
  }
  const { trial } = await slots.read();
  if (trial?.phase === 'active') return { tries, hasStaged: false };
  // What waits in the shadow has not been offered yet.
  return { tries: others, hasStaged: trial !== undefined && next?.reason !== 'shadow' };
}
