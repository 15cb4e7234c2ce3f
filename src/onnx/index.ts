/**
 * Read, write, inspect and build ONNX models.
 * @module inlay/onnx
 */
export type { AttributeValue, GraphSource } from './attributes.ts';
export {
  createGraph,
  type Attributes,
  type GraphBuilder,
  type GraphOptions,
  type ModelBuilder,
  type NodeOptions,
} from './build.ts';
export {
  costsOf,
  type CostOptions,
  type CostReport,
  type NodeCost,
  type OperatorCost,
  type TensorCost,
} from './costs.ts';
export { toDeclaration, toTypeName, type DeclarationOptions } from './declaration.ts';
export {
  inlineExternal,
  moveExternal,
  sourceResolver,
  type AsyncExternalResolver,
  type MovedExternal,
  type MoveOptions,
} from './external.ts';
export { inspectModel, type ModelReport, type ParameterReport, type ValueReport } from './inspect.ts';
export { parseStructure, type ByteSource, type StructureOptions } from './lazy.ts';
export type * from './messages.ts';
export { encodeModel, parseModel } from './model.ts';
export { encodedSizeBytes, encodePieces } from './pieces.ts';
export { opsetOf, RAISED_OPSET, raiseOpset } from './opset.ts';
export { rewriteModel, type Edit, type RewriteOptions, type Rewriter } from './rewrite.ts';
export { ATTRIBUTE } from './schema.ts';
export { openBody, openScope, type Scope } from './scope.ts';
export { signatureOf } from './signature.ts';
export {
  fromTensorProto,
  toTensorProto,
  type ExternalReference,
  type ExternalResolver,
  type FromTensorOptions,
} from './tensors.ts';
export type { ValueType, ValueTypes } from './types.ts';
export {
  assertValid,
  validateModel,
  type Problem,
  type ProblemCode,
  type ValidateOptions,
} from './validate.ts';
