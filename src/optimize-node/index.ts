/**
 * Make ONNX models smaller and faster, and prove it; with the runtimes and the files of Node.
 * @module inlay/optimize
 */
export * from '../optimize/index.ts';
export { createCalibrationStore, type CalibrationStoreOptions } from './calibration-store.ts';
export { openBrowserRuntime, type BrowserRuntimeOptions } from './browser.ts';
export {
  openModelFile,
  saveModelFile,
  type OpenedModel,
  type OpenModelOptions,
  type SavedFile,
  type SavedModel,
  type SaveModelOptions,
} from './model-file.ts';
export { createNodeRuntime, type NodeRuntimeOptions } from './node-cpu.ts';
export { openTarget, type TargetOptions } from './target.ts';
export { createWasmRuntime, type WasmRuntimeOptions } from './wasm.ts';
