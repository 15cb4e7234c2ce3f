/**
 * Train a smaller network to answer as a model does, and write it as ONNX.
 * @module inlay/optimize/distil
 */
export { distil, type Distilled, type DistilOptions, type DistilProgress } from './distil.ts';
export type { TfLayer, TfLayersModel, TfLibrary, TfShape, TfSymbolicTensor, TfTensor } from './library.ts';
export type { Task } from './losses.ts';
export type { RowSpec } from './rows.ts';
export {
  cnn,
  mlp,
  type CnnOptions,
  type HiddenActivation,
  type MlpOptions,
  type StudentNeeds,
  type StudentRecipe,
} from './students.ts';
export type { Teacher } from './teacher.ts';
export { toOnnxModel, type ToOnnxOptions } from './to-onnx.ts';
export type { EpochReport } from './train.ts';
