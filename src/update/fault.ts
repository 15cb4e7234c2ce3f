/** What an error says of a release, in the words of the slots. */

import { isInlayError, UpdateError } from '../core/errors.ts';
import { rejectReasons, type RejectReason } from './slot.ts';

/** Why a release does not work here. */
export interface Fault {
  readonly reason: RejectReason;
  /** For people. */
  readonly detail: string;
}

/** Builds the error of a release that does not prove itself. */
export function rejected(reason: RejectReason, detail: string): UpdateError {
  return new UpdateError(
    'ERR_INLAY_UPDATE_REJECTED',
    `The release does not work on this device: ${detail}; what ran before goes on.`,
    { details: { reason, detail } },
  );
}

/** Tells what is wrong with a release from what opening or fetching it threw. */
export function faultOf(error: unknown): Fault {
  const detail = error instanceof Error ? error.message : String(error);
  if (!isInlayError(error)) return { reason: 'open', detail };
  const { code, details } = error;
  switch (code) {
    case 'ERR_INLAY_UPDATE_REJECTED': {
      const { reason } = details;
      const known = rejectReasons.find((word) => word === reason) ?? 'open';
      return { reason: known, detail: String(details['detail'] ?? detail) };
    }
    case 'ERR_INLAY_WORKER_LOST':
      if (details['reason'] === 'hung') return { reason: 'hang', detail };
      return { reason: details['reason'] === 'memory' ? 'memory' : 'crash', detail };
    case 'ERR_INLAY_MODEL_UNSUPPORTED':
      return { reason: details['maxModelBytes'] === undefined ? 'incompatible' : 'too-large', detail };
    case 'ERR_INLAY_HASH':
    case 'ERR_INLAY_LENGTH':
      return { reason: 'hash', detail };
    default:
      return { reason: 'open', detail };
  }
}
