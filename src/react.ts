/**
 * `inlay/react`: models in React components. Loads are shared between components, survive strict mode, and end with the last
 * component that needs them. Works with React 18 and 19, in browsers and React Native.
 * @module inlay/react
 */
export { InlayProvider, resetFailedModels, useInlay, type InlayProviderProps } from './react/provider.ts';
export type { HookLoadOptions } from './react/entry.ts';
export type { LoadProgress } from './engine/progress.ts';
export type { ObsoleteCalls, RunCallOptions, RunState } from './react/runner.ts';
export { useModel, useModelSuspense, type ModelState, type UseModelOptions } from './react/use-model.ts';
export { useRun, type RunResult, type UseRunOptions } from './react/use-run.ts';
