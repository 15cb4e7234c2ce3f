/** A backend without a library: what a model does stands in the name of its graph. It starts in no time. */
import { readFile } from 'node:fs/promises';
import type { Backend } from '../../src/core/backend.ts';
import { ModelError } from '../../src/core/errors.ts';
import { Tensor } from '../../src/core/tensor.ts';

/** What a model does besides multiplying. */
export type Deed =
  | 'good'
  /** Ends its process when it is opened. */
  | 'aborts'
  /** Is never through with being opened, and blocks its thread meanwhile. */
  | 'loops'
  /** Is never through with being opened, and blocks nobody. */
  | 'waits'
  /** Takes 16 MiB with every run, and keeps them. */
  | 'leaks';

const leaked: Uint8Array[] = [];

/**
 * Creates the backend.
 * @param isolated - the place where releases are tried, if there is one.
 */
export function createTinyBackend(isolated?: Backend): Backend {
  return {
    name: 'tiny',
    ...(isolated && { isolated }),
    providers: async () => [{ name: 'cpu', device: 'cpu' }],
    createSession: async (source, { provider }) => {
      const bytes = source.bytes ?? (await readFile(source.path));
      const text = new TextDecoder('latin1').decode(bytes);
      const [, deed, number] = /deed (\w+) factor (\d+);/.exec(text) ?? [];
      if (deed === undefined) throw new ModelError('ERR_INLAY_MODEL_INVALID', 'The file is no model.');
      if (deed === 'aborts') process.abort();
      if (deed === 'loops') Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
      if (deed === 'waits') await new Promise(() => {});
      const factor = Number(number);
      return {
        signature: {
          inputs: [{ name: 'x', dtype: 'float32', shape: ['batch', 2] }],
          outputs: [{ name: 'y', dtype: 'float32', shape: ['batch', 2] }],
        },
        provider,
        placement: 'inline',
        run: async ({ x }) => {
          if (deed === 'leaks') leaked.push(new Uint8Array(2 ** 24).fill(1));
          const data = Float32Array.from(x?.data as Float32Array, (value) => value * factor);
          return { y: new Tensor('float32', x?.shape ?? [], data) };
        },
        release: async () => {},
      };
    },
    close: async () => {},
  };
}
