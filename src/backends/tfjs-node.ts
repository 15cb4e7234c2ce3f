/**
 * Adapter around TensorFlow.js for Node, Bun and Deno: models may be files.
 * @module inlay/backends/tfjs
 */
import { readFile } from 'node:fs/promises';
import type { Backend } from '../core/backend.ts';
import { tfjs as tfjsAnywhere, type TfjsOptions } from './tfjs.ts';

export type { LibraryLoader, TfjsOptions, TfModule, TfWasmModule } from './tfjs.ts';

/**
 * Creates the backend of TensorFlow.js, which also reads models by their paths here. The package `@tensorflow/tfjs-node`
 * brings the provider `tensorflow`.
 *
 * Runs block the calling thread for their length. TensorFlow.js has one engine per thread: what the host does with it is
 * left alone, with the limits that the build for pages has, too.
 *
 * @example
 * const backend = tfjs({ tf: () => import('@tensorflow/tfjs') });
 */
export function tfjs(options: TfjsOptions): Backend {
  return tfjsAnywhere({ readFile: (path) => readFile(path), ...options });
}
