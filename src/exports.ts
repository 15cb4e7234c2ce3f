/** What every platform's entry exports. */
export type {
  Backend,
  ExecutionProvider,
  ModelSource,
  Session,
  SessionOptions,
  SessionRunOptions,
  TensorMap,
} from './core/backend.ts';
export { DTYPES, type DType, type DTypeInfo, type DTypeStorage, type TypedArray } from './core/dtype.ts';
export {
  BackendError,
  InlayError,
  InputError,
  isInlayError,
  ModelError,
  NetworkError,
  ServerError,
  StateError,
  StoreError,
  TrustError,
  type AnyInlayError,
  type ErrorCode,
  type ErrorCodes,
  type ErrorName,
  type ErrorParts,
} from './core/errors.ts';
export type { Events } from './core/events.ts';
export type { Hasher } from './core/hash.ts';
export type { FileAccess, Platform } from './core/platform.ts';
export type { Dimension, Signature, TensorSpec } from './core/signature.ts';
export type { Blob, Store, StoreInfo } from './core/store.ts';
export { Tensor, tensorFrom, type NestedArray, type Scalar } from './core/tensor.ts';
export type { Attempt, DevicePreference } from './engine/candidates.ts';
export type { Feed, Feeds } from './engine/feeds.ts';
export type {
  Inlay,
  InlayInfo,
  InlayOptions,
  LoadOptions,
  ModelReference,
  SyncOptions,
} from './engine/inlay.ts';
export type { Model, ModelEvents, RunAllOptions, RunOptions } from './engine/model.ts';
export type { Source } from './engine/run-all.ts';
export type { ModelStats } from './engine/stats.ts';
