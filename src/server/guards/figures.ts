/** What was known when a person went by their own judgement, for the audit log. */

import type { Kysely } from 'kysely';
import type { Schema } from '../db/schema.ts';
import { readStage } from './inspect.ts';
import { countDevices, type StageKey } from './stage-devices.ts';

/** Longest reason that the audit log takes. */
const mostReason = 500;

/** Gives a reason with the figures of the stage behind it; these are kept whole. */
export async function withFigures(
  db: Kysely<Schema>,
  key: StageKey,
  reason: string | undefined,
): Promise<string> {
  const [{ state }, { devices }] = await Promise.all([readStage(db, key), countDevices(db, key)]);
  const { treated, treatedBad, control, controlBad } = state.any;
  const figures =
    `${devices.treated} devices had it; ${treatedBad} of ${treated} judged ones were worse off, ` +
    `and ${controlBad} of ${control} in the control.`;
  return reason === undefined ? figures : `${reason.slice(0, mostReason - figures.length - 3)} (${figures})`;
}
