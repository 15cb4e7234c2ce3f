/** What an error says of a release, in the words of the slots. */

import { isInlayError, ModelError, UpdateError } from '../core/errors.ts';
import { rejectReasons, type Rejected, type RejectReason } from './slot.ts';

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
      const words = details['detail'];
      return { reason: known, detail: typeof words === 'string' ? words : detail };
    }
    case 'ERR_INLAY_WORKER_LOST':
      if (details['reason'] === 'hung') return { reason: 'hang', detail };
      return { reason: details['reason'] === 'memory' ? 'memory' : 'crash', detail };
    case 'ERR_INLAY_MODEL_UNSUPPORTED':
      if (details['reason'] === 'signature') return { reason: 'signature', detail };
      return { reason: details['maxModelBytes'] === undefined ? 'incompatible' : 'too-large', detail };
    case 'ERR_INLAY_HASH':
    case 'ERR_INLAY_LENGTH':
      return { reason: 'hash', detail };
    default:
      return { reason: 'open', detail };
  }
}

/**
 * Says in one word why a check or a download failed, for the log: `network`, `store` and `trust` are no faults of a
 * release, and everything else is that of {@link faultOf}.
 */
export function failureOf(error: unknown): { readonly reason: string; readonly detail: string } {
  const { reason, detail } = faultOf(error);
  const word = isInlayError(error) && reason === 'open' ? failures[error.name] : undefined;
  return { reason: word ?? reason, detail };
}

const failures: Readonly<Record<string, string>> = {
  NetworkError: 'network',
  StoreError: 'store',
  TrustError: 'trust',
};

/** Builds the error of a release that did not work here earlier, and is not tried again yet. */
export function heldBack({ version, reason, detail, until }: Rejected): UpdateError {
  const again = until === null ? 'only after a change' : `after ${new Date(until).toISOString()}`;
  return new UpdateError(
    'ERR_INLAY_UPDATE_REJECTED',
    `version ${version} did not work on this device (${reason}: ${detail}) and is tried again ${again}; publish a fix, or let devices retry with \`inlay rollout retry\`.`,
    { details: { reason, detail, until } },
  );
}

/** A mistake in the options of the host says nothing about a release. */
export function isOfHost(error: unknown): boolean {
  return error instanceof TypeError || error instanceof RangeError;
}

/**
 * Builds the error of a model of which nothing can be run.
 * @param cause - why no release could be had.
 * @param embedded - why what came with the app does not serve.
 * @param stored - why what is stored does not serve.
 */
export function unavailable(name: string, cause: unknown, embedded: unknown, stored: unknown): ModelError {
  if (isOfHost(cause)) throw cause;
  if (isInlayError(cause) && cause.code === 'ERR_INLAY_CLOSED') throw cause;
  const why =
    cause instanceof Error ? cause.message : 'no plan of this channel offers this device a version of it.';
  const also =
    embedded instanceof Error && embedded !== cause
      ? ` The version that came with the app does not open: ${embedded.message}`
      : '';
  const lost = stored instanceof Error && stored !== cause && stored !== embedded ? ` ${stored.message}` : '';
  return new ModelError(
    'ERR_INLAY_MODEL_UNAVAILABLE',
    `Model "${name}" cannot be loaded yet: ${why}${also}${lost}`,
    // Where nothing is wrong with the network, the file of the app is what can be mended.
    { cause: cause ?? embedded },
  );
}
