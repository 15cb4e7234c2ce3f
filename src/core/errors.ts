/**
 * Everything that Inlay throws on its own account. One base class, few classes, many codes: new cases are new
 * codes. Wrong arguments of the host's code are `TypeError` or `RangeError`; an abort rethrows `signal.reason`.
 */

/** Codes by class. A code names what happened, and stays the same across releases. */
export interface ErrorCodes {
  readonly InputError:
    | 'ERR_INLAY_FEED_MISSING'
    | 'ERR_INLAY_FEED_UNKNOWN'
    | 'ERR_INLAY_FEED_DTYPE'
    | 'ERR_INLAY_FEED_SHAPE'
    | 'ERR_INLAY_FEED_VALUE'
    | 'ERR_INLAY_FEED_DETACHED'
    | 'ERR_INLAY_OUTPUT_UNKNOWN';
  readonly ModelError:
    | 'ERR_INLAY_MODEL_NOT_FOUND'
    | 'ERR_INLAY_MODEL_INVALID'
    | 'ERR_INLAY_MODEL_TRUNCATED'
    | 'ERR_INLAY_MODEL_UNSUPPORTED'
    | 'ERR_INLAY_MODEL_UNAVAILABLE';
  readonly BackendError:
    | 'ERR_INLAY_BACKEND_MISSING'
    | 'ERR_INLAY_BACKEND_UNAVAILABLE'
    | 'ERR_INLAY_DEVICE_UNAVAILABLE'
    | 'ERR_INLAY_RUN_FAILED'
    | 'ERR_INLAY_WORKER_LOST';
  readonly StateError: 'ERR_INLAY_CLOSED';
  readonly ScheduleError: 'ERR_INLAY_DEADLINE' | 'ERR_INLAY_OVERLOADED';
  readonly StoreError:
    | 'ERR_INLAY_STORE_FULL'
    | 'ERR_INLAY_STORE_READ_ONLY'
    | 'ERR_INLAY_STORE_IO'
    | 'ERR_INLAY_STORE_MISMATCH'
    | 'ERR_INLAY_STORE_MISSING';
  readonly NetworkError: 'ERR_INLAY_NETWORK' | 'ERR_INLAY_HTTP_STATUS' | 'ERR_INLAY_HTTP_CONTENT';
  readonly TrustError:
    | 'ERR_INLAY_METADATA_INVALID'
    | 'ERR_INLAY_SIGNATURE'
    | 'ERR_INLAY_EXPIRED'
    | 'ERR_INLAY_ROLLBACK'
    | 'ERR_INLAY_LENGTH'
    | 'ERR_INLAY_HASH'
    | 'ERR_INLAY_PLAN_INVALID'
    | 'ERR_INLAY_WITHDRAWN';
  readonly UpdateError: 'ERR_INLAY_UPDATE_HELD' | 'ERR_INLAY_UPDATE_REJECTED' | 'ERR_INLAY_PATCH';
  readonly ServerError:
    | 'ERR_INLAY_CONFLICT'
    | 'ERR_INLAY_REFUSED'
    | 'ERR_INLAY_UNAUTHORIZED'
    | 'ERR_INLAY_FORBIDDEN'
    | 'ERR_INLAY_NOT_FOUND'
    | 'ERR_INLAY_RATE_LIMITED'
    | 'ERR_INLAY_BUSY'
    | 'ERR_INLAY_GONE'
    | 'ERR_INLAY_REPORT_INVALID'
    | 'ERR_INLAY_SERVER';
}

/** Name of an error class. */
export type ErrorName = keyof ErrorCodes;
/** Any code, or the codes of one class. */
export type ErrorCode<Name extends ErrorName = ErrorName> = ErrorCodes[Name];

/** What an error is made of. */
export interface ErrorParts {
  /** Facts for programs. Never user data, never key material. */
  readonly details?: Readonly<Record<string, unknown>>;
  readonly cause?: unknown;
}

const brand = /* @__PURE__ */ Symbol.for('inlay.error');

/** Base of all errors that Inlay throws on its own account. */
export class InlayError<Name extends ErrorName = ErrorName> extends Error {
  override readonly name: Name;
  readonly code: ErrorCode<Name>;
  readonly details: Readonly<Record<string, unknown>>;

  constructor(name: Name, code: ErrorCode<Name>, message: string, parts: ErrorParts = {}) {
    super(message, 'cause' in parts ? { cause: parts.cause } : undefined);
    this.name = name;
    this.code = code;
    this.details = parts.details ?? {};
    Object.defineProperty(this, brand, { value: true });
  }
}

/** A feed or a run option does not fit the model's signature. The model is untouched. */
export class InputError extends InlayError<'InputError'> {
  constructor(code: ErrorCode<'InputError'>, message: string, parts?: ErrorParts) {
    super('InputError', code, message, parts);
  }
}

/** A model cannot be found, read or understood. */
export class ModelError extends InlayError<'ModelError'> {
  constructor(code: ErrorCode<'ModelError'>, message: string, parts?: ErrorParts) {
    super('ModelError', code, message, parts);
  }
}

/** An inference library, one of its devices or its worker does not do what was asked. */
export class BackendError extends InlayError<'BackendError'> {
  constructor(code: ErrorCode<'BackendError'>, message: string, parts?: ErrorParts) {
    super('BackendError', code, message, parts);
  }
}

/** Something was used after its `close()`. */
export class StateError extends InlayError<'StateError'> {
  constructor(code: ErrorCode<'StateError'>, message: string, parts?: ErrorParts) {
    super('StateError', code, message, parts);
  }
}

/**
 * A call was given up before it ran: it could not have been answered in time, or too much waits already. `details` have
 * a `reason` and, where waiting helps, `retryAfterMs`.
 */
export class ScheduleError extends InlayError<'ScheduleError'> {
  constructor(code: ErrorCode<'ScheduleError'>, message: string, parts?: ErrorParts) {
    super('ScheduleError', code, message, parts);
  }
}

/** The store cannot keep or give back what it was asked to. Nothing is half written. */
export class StoreError extends InlayError<'StoreError'> {
  constructor(code: ErrorCode<'StoreError'>, message: string, parts?: ErrorParts) {
    super('StoreError', code, message, parts);
  }
}

/** A server cannot be reached or answers something else than was asked for. Retried by `core/retry`. */
export class NetworkError extends InlayError<'NetworkError'> {
  constructor(code: ErrorCode<'NetworkError'>, message: string, parts?: ErrorParts) {
    super('NetworkError', code, message, parts);
  }
}

/** Signed metadata or a downloaded file fails verification. Never retried, never downgraded to a warning. */
export class TrustError extends InlayError<'TrustError'> {
  constructor(code: ErrorCode<'TrustError'>, message: string, parts?: ErrorParts) {
    super('TrustError', code, message, parts);
  }
}

/**
 * An update is not carried out: a policy holds it, the release does not prove itself on this device, or a patch cannot
 * be applied. What ran before goes on.
 */
export class UpdateError extends InlayError<'UpdateError'> {
  constructor(code: ErrorCode<'UpdateError'>, message: string, parts?: ErrorParts) {
    super('UpdateError', code, message, parts);
  }
}

/** The sync server refuses what it was asked for, or fails at it. */
export class ServerError extends InlayError<'ServerError'> {
  constructor(code: ErrorCode<'ServerError'>, message: string, parts?: ErrorParts) {
    super('ServerError', code, message, parts);
  }
}

/** The error of whatever was closed: `The session`, `Model "digits"` … */
export function closedError(what: string): StateError {
  return new StateError('ERR_INLAY_CLOSED', `${what} was closed; open a new one.`);
}

/** Union of all error classes, so that `switch (error.code)` narrows. */
export type AnyInlayError =
  | InputError
  | ModelError
  | BackendError
  | StateError
  | ScheduleError
  | StoreError
  | NetworkError
  | TrustError
  | UpdateError
  | ServerError;

/** Tells whether a value is an Inlay error, also across duplicate copies of this package. */
export function isInlayError(value: unknown): value is AnyInlayError {
  return typeof value === 'object' && value !== null && Reflect.get(value, brand) === true;
}

const classes = {
  InputError,
  ModelError,
  BackendError,
  StateError,
  ScheduleError,
  StoreError,
  NetworkError,
  TrustError,
  UpdateError,
  ServerError,
};

/** An error as plain data, for crossing a thread or a process. */
export interface ErrorRecord {
  readonly name: string;
  readonly message: string;
  readonly stack?: string;
  readonly code?: string;
  readonly details?: Readonly<Record<string, unknown>>;
  readonly cause?: ErrorRecord;
}

/** Turns any thrown value into plain data that `structuredClone` accepts. */
export function toErrorRecord(value: unknown, depth = 4): ErrorRecord {
  if (!(value instanceof Error)) return { name: 'Error', message: String(value) };
  const code: unknown = (value as { code?: unknown }).code;
  return {
    name: value.name,
    message: value.message,
    ...(value.stack !== undefined && { stack: value.stack }),
    ...(typeof code === 'string' && { code }),
    ...(isInlayError(value) && { details: value.details }),
    ...(value.cause !== undefined && depth > 0 && { cause: toErrorRecord(value.cause, depth - 1) }),
  };
}

/** Rebuilds an error with its class, code, details, stack and cause. */
export function fromErrorRecord(record: ErrorRecord): Error {
  const parts = {
    ...(record.details && { details: record.details }),
    ...(record.cause && { cause: fromErrorRecord(record.cause) }),
  };
  let error: Error;
  if (Object.hasOwn(classes, record.name)) {
    const Class = classes[record.name as ErrorName] as new (
      code: string,
      message: string,
      parts: ErrorParts,
    ) => InlayError;
    error = new Class(record.code ?? '', record.message, parts);
  } else {
    error = new Error(record.message, 'cause' in parts ? { cause: parts.cause } : undefined);
    error.name = record.name;
    if (record.code !== undefined) Object.assign(error, { code: record.code });
  }
  if (record.stack !== undefined) error.stack = record.stack;
  return error;
}
