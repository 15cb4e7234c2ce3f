/** What the library throws, in the words of Inlay. */
import type { ModelSource } from '../core/backend.ts';
import { BackendError, isInlayError, ModelError } from '../core/errors.ts';
import { nameOf } from './tfjs-files.ts';

const UNSUPPORTED =
  /unknown (layer|op|activation|initializer|regularizer|constraint)|not registered|not (yet )?(supported|implemented)|unsupported|does not support/i;
const OUT_OF_MEMORY = /out of memory|allocation failed|invalid (typed )?array length|no memory/i;
const DEVICE_LOST = /context (was )?lost|device (is |was )?lost|lost device/i;

/** Whether a run fails because the model asks for what the library does not have. */
export function isUnsupported(cause: unknown): boolean {
  return UNSUPPORTED.test(reasonOf(cause));
}

/** Wraps what the library throws when a model is opened, once. */
export function createError(cause: unknown, source: ModelSource, provider: string): Error {
  if (isInlayError(cause)) return cause;
  const reason = reasonOf(cause);
  const parts = { cause, details: { provider } };
  if (OUT_OF_MEMORY.test(reason) || DEVICE_LOST.test(reason)) return deviceError(reason, cause);
  return isUnsupported(cause)
    ? new ModelError(
        'ERR_INLAY_MODEL_UNSUPPORTED',
        `${nameOf(source)} cannot be run by the TensorFlow.js backend "${provider}": ${reason}.`,
        parts,
      )
    : new ModelError('ERR_INLAY_MODEL_INVALID', `${nameOf(source)} is no valid model: ${reason}.`, parts);
}

/** Wraps what the library throws at a run, once. */
export function runError(cause: unknown): Error {
  if (isInlayError(cause)) return cause;
  const reason = reasonOf(cause);
  if (DEVICE_LOST.test(reason)) return deviceError(reason, cause);
  if (cause instanceof Error && cause.name === 'RuntimeError') {
    return new BackendError(
      'ERR_INLAY_BACKEND_UNAVAILABLE',
      `WebAssembly broke down in the run: ${reason}.`,
      { cause },
    );
  }
  return new BackendError('ERR_INLAY_RUN_FAILED', `The run failed: ${reason}.`, { cause });
}

function deviceError(reason: string, cause: unknown): BackendError {
  const details = DEVICE_LOST.test(reason) ? { reason: 'lost' } : {};
  return new BackendError('ERR_INLAY_DEVICE_UNAVAILABLE', `The device cannot go on: ${reason}.`, {
    cause,
    details,
  });
}

/** A library's message on one line without its final stop. */
function reasonOf(thrown: unknown): string {
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  return message.slice(0, 500).replace(/\s+/g, ' ').trim().replace(/\.$/, '');
}
