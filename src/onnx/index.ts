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
export { toDeclaration, toTypeName, type DeclarationOptions } from './declaration.ts';
export { inspectModel, type ModelReport, type ParameterReport, type ValueReport } from './inspect.ts';
export type * from './messages.ts';
export { encodeModel, parseModel } from './model.ts';
export { ATTRIBUTE } from './schema.ts';
export { signatureOf } from './signature.ts';
export {
  fromTensorProto,
  toTensorProto,
  type ExternalReference,
  type ExternalResolver,
  type FromTensorOptions,
} from './tensors.ts';
