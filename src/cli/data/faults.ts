import { InputError } from '../../core/errors.ts';

/** Says that a data file is not what it claims to be: `digits.npy cannot be read: …`. */
export function invalidData(name: string, what: string, cause?: unknown): InputError {
  return new InputError('ERR_INLAY_FEED_VALUE', `${name} cannot be read: ${what}.`, {
    details: { file: name },
    ...(cause !== undefined && { cause }),
  });
}

/** Says that a data file holds a dtype that has no place here. */
export function unsupportedData(name: string, what: string): InputError {
  return new InputError('ERR_INLAY_FEED_DTYPE', `${name} ${what}.`, { details: { file: name } });
}

/** Says that a shape or length does not fit. */
export function misshapenData(name: string, what: string): InputError {
  return new InputError('ERR_INLAY_FEED_SHAPE', `${name} ${what}.`, { details: { file: name } });
}
