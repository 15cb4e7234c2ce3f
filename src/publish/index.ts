/**
 * Make signed releases from code: what `inlay keys`, `inlay publish` and the sync server are built on.
 * @module inlay/publish
 */
export {
  checkModel,
  defaultTolerance,
  type CheckedFile,
  type CheckOptions,
  type CheckResult,
  type GoldenInputs,
  type GoldenSource,
} from './check-model.ts';
export {
  compactLimits,
  compactRelease,
  type CompactAttempt,
  type CompactMode,
  type CompactOptions,
  type CompactRelease,
} from './compact/compact.ts';
export {
  createMetricGate,
  openAnswerGate,
  type AnswerGateOptions,
  type AnswerLimits,
  type Figure,
  type Gate,
  type MetricGateOptions,
  type Verdict,
} from './compact/gate.ts';
export type { RoundedTensor } from './compact/grid.ts';
export { snapRelease, type SnapOptions, type SnappedRelease } from './compact/snap.ts';
export { encodePatch, type EncodeOptions } from './delta/encode.ts';
export { createDeltaEncoder, type DeltaEncoderOptions } from './delta/encoder.ts';
export {
  explainPatch,
  type ExplainedSegment,
  type PatchExplanation,
  type PatchPart,
} from './delta/explain.ts';
export { snapToGrid } from './delta/snap.ts';
export { externalSpans } from './delta/spans-onnx.ts';
export { segmentsOf, type Span } from './delta/spans.ts';
export type { UpdateStep, UpdateSteps } from './delta/steps.ts';
export type { Gzip, PatchEncoder } from './patches.ts';
export {
  changeTargets,
  publishRelease,
  type PublishedRelease,
  type PublisherKeys,
  type PublishOptions,
  type ReleaseContent,
  type ReleaseServer,
  type ReleaseVariant,
  type Tip,
} from './publisher.ts';
export { raiseFloor, removeRelease, revokeRelease, type ReleaseChange } from './release-policy.ts';
export type { ReleaseWay } from './release-ways.ts';
export {
  addRelease,
  createRolloutTargets,
  createRoot,
  createSnapshot,
  createTargets,
  createTimestamp,
  expiresIn,
  findRelease,
  isWithdrawn,
  listReleases,
  type ListedRelease,
  type NewCompanion,
  type NewRelease,
  type RootOptions,
} from './release.ts';
export type { PatchFrom } from './released-files.ts';
export { setRollout } from './rollout.ts';
export { signMetadata } from './sign.ts';
export { generateKeyPair, openSigner, toKeyFile, type KeyFile, type KeyPair, type Signer } from './signer.ts';
export { readVerified, type VerifiedCopy, type VerifiedOptions } from './verified-copy.ts';
export { type Feature, type FeatureReading, type Profile } from '../telemetry/profile.ts';
export {
  chooseFeatures,
  createProfileBuilder,
  type FeatureChoice,
  type ProfileBuilder,
  type ProfileChoice,
} from '../telemetry/profile-builder.ts';
