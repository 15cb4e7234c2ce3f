/** What every platform's entry exports. */
export type {
  Backend,
  ExecutionProvider,
  ModelSource,
  Placement,
  Session,
  SessionOptions,
  SessionRunOptions,
  Slot,
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
  ScheduleError,
  ServerError,
  StateError,
  StoreError,
  TrustError,
  UpdateError,
  type AnyInlayError,
  type ErrorCode,
  type ErrorCodes,
  type ErrorName,
  type ErrorParts,
} from './core/errors.ts';
export type { Events } from './core/events.ts';
export type { Logger } from './core/logger.ts';
export type { Hasher } from './core/hash.ts';
export type { FileAccess, Platform } from './core/platform.ts';
export type { Dimension, Signature, TensorSpec } from './core/signature.ts';
export type { Blob, PartialBlob, Store, StoreInfo } from './core/store.ts';
export type { Span, SpanFacts, Tracing } from './core/tracing.ts';
export { Tensor, tensorFrom, type NestedArray, type Scalar } from './core/tensor.ts';
export type { Attempt, DevicePreference } from './engine/candidates.ts';
export type { Feed, Feeds } from './engine/feeds.ts';
export type { Inlay, InlayInfo, InlayOptions, LoadOptions, SyncOptions } from './engine/inlay.ts';
export type {
  EmbeddedFacts,
  EmbeddedRelease,
  FileReference,
  ModelReference,
  NamedReference,
  VariantsReference,
} from './engine/reference.ts';
export type { Updates } from './engine/updates.ts';
export type { Telemetry } from './engine/reporting.ts';
export type { LoadProgress, ProgressListener } from './engine/progress.ts';
export type { Model, ModelEvents, ModelStats, RunAllOptions, RunOptions } from './engine/model.ts';
export type { SchedulingOptions } from './engine/scheduling-options.ts';
export type { Degraded, ServingInfo } from './engine/serving.ts';
export type { Pipeline, PipelineRunOptions, StepStats } from './engine/pipeline.ts';
export type {
  FunctionStep,
  ModelStep,
  PipelineDefinition,
  PipelineInputs,
  PipelineModel,
  PipelineOutputs,
  StepContext,
  Values,
} from './engine/pipeline-definition.ts';
export type {
  EntriesOptions,
  Entry,
  IterationOptions,
  OutputsOptions,
  Progress,
  Source,
} from './engine/run-all.ts';
export type { OpenTelemetryApi } from './opentelemetry.ts';
export type { QueueStats, Summary } from './schedule/metrics.ts';
export type { PredictionsOptions, PredictionsStats } from './schedule/predictions.ts';
export type { QueueInfo } from './schedule/queue-options.ts';
export type { FeedOf, ModelTypes, OutputName, OutputsOf, TensorOf } from './engine/typed.ts';
export type { PaddingInfo, PaddingOptions } from './schedule/padding.ts';
export type {
  GoldenInput,
  VariantAttempt,
  VariantRules,
  VariantTolerance,
} from './engine/variants-compare.ts';
export type { TelemetryOptions, TelemetryState } from './telemetry/options.ts';
export type { Feedback } from './telemetry/recorder.ts';
export type { Consent } from './telemetry/report.ts';
export type { UpdateEvent, UpdateEventType } from './update/events.ts';
export type { AppFacts, UpdatePolicy, UpdatesState } from './update/update-client.ts';
export type { Activation, UpdaterState } from './update/follower.ts';
