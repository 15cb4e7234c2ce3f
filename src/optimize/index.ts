/**
 * Make ONNX models smaller and faster, and prove it: techniques, calibration, comparison, and the choice by measurement.
 * @module inlay/optimize
 */
export { applyTechnique, type ApplyOptions } from './apply.ts';
export {
  auditGraph,
  auditModel,
  type Audit,
  type AuditOptions,
  type Finding,
  type FindingKind,
} from './audit.ts';
export { calibrate, type Calibration } from './calibrate.ts';
export { calibrationKey, fromCalibrationFile, toCalibrationFile } from './calibrate-file.ts';
export type { CalibrateOptions, CalibrationMethod, CalibrationProgress } from './calibrate-options.ts';
export {
  listCandidates,
  variantOfTechnique,
  workloadOf,
  type Candidate,
  type CandidateContext,
  type Dismissed,
  type Workload,
} from './candidates.ts';
export {
  compareOutputs,
  createComparer,
  type Comparer,
  type Comparison,
  type ComparisonFinding,
  type OutputComparison,
} from './compare.ts';
export {
  compareModels,
  type CompareModelsOptions,
  type ModelComparison,
  type SpeedComparison,
} from './compare-models.ts';
export { convertModel, type ConvertOptions } from './convert.ts';
export { compareLayers, type CompareLayersOptions, type LayerComparison } from './compare-layers.ts';
export type { Accuracy, Attempt, BatchTime, Decision, LayerAccuracy, Outcome } from './decision.ts';
export { quantizeDynamic } from './dynamic.ts';
export { toFloat16 } from './float16.ts';
export { checkInvariance, type BatchInvariance } from './invariance.ts';
export {
  measureModels,
  type Latency,
  type MeasureOptions,
  type Measurement,
  type Subject,
} from './measure.ts';
export { quantizeBlocks } from './nbits.ts';
export { optimizeModel, type Optimized } from './optimize.ts';
export type {
  CalibrationData,
  CalibrationStore,
  CompleteGoal,
  Evaluation,
  Goal,
  OptimizeOptions,
  OptimizeProgress,
} from './options.ts';
export { prepareModel } from './prepare.ts';
export { pruneModel } from './prune.ts';
export type { Report } from './report.ts';
export type {
  NamedValueType,
  OpenOptions,
  OptimizationLevel,
  OptimizeRuntime,
  RuntimeSession,
  TargetName,
} from './runtime.ts';
export { quantizeStatic, type StaticOptions } from './static.ts';
export type {
  BlockQuantized,
  DynamicInt8,
  Float16,
  Int8,
  MagnitudePruning,
  NodeNote,
  Range,
  Ranges,
  Rewritten,
  StaticInt8,
  Technique,
  TechniqueOptions,
  ValueType,
  ValueTypes,
} from './technique.ts';
export { exposeValues, inferTypes } from './types.ts';
export { writeGolden, type GoldenCase } from '../update/golden.ts';
