/** A page with the default backends, told what to do by its tests. */
// By its path: to the type checker, the name means the entry for Node.
import {
  createInlay,
  inWorker,
  isInlayError,
  type Inlay,
  type Model,
  type WebInlayOptions,
} from '../../dist/index.js';

type Values = Readonly<Record<string, readonly number[]>>;
/** An error as its test sees it. */
interface Fault {
  readonly name: string;
  readonly code: string | undefined;
  readonly message: string;
  readonly details: unknown;
}

let inlay: Inlay | undefined;
let model: Model | undefined;
/** Workers that were started, in order. */
const workers: Worker[] = [];

const counted = (create: () => Worker) => (): Worker => {
  const worker = create();
  workers.push(worker);
  return worker;
};

/** Ways to start a worker. */
const scripts: Readonly<Record<string, () => Worker>> = {
  gpu: counted(() => new Worker(new URL('./gpu.worker.ts', import.meta.url), { type: 'module' })),
  own: counted(() => new Worker(new URL('./own.worker.ts', import.meta.url), { type: 'module' })),
  missing: () => new Worker('/nowhere.js', { type: 'module' }),
  missingClassic: () => new Worker('/nowhere.js'),
  html: () => new Worker('/', { type: 'module' }),
  htmlClassic: () => new Worker('/'),
  silent: () => new Worker('/silent.js', { type: 'module' }),
  throwing: () => new Worker('/throwing.js', { type: 'module' }),
  classic: () => new Worker('/classic.js'),
};

const toFault = (error: unknown): Fault => ({
  name: (error as Error).name,
  code: isInlayError(error) ? error.code : undefined,
  message: (error as Error).message,
  details: isInlayError(error) ? error.details : undefined,
});

/** Bytes of a model, and a file to fetch the bytes of WebAssembly from. */
interface Options extends WebInlayOptions {
  readonly script?: string;
  readonly wasmFrom?: string;
}

const api = {
  /** Creates the Inlay that the other functions use. */
  create: async ({ script, wasmFrom, ...options }: Options = {}) => {
    const wasmBinary = wasmFrom && (await (await fetch(wasmFrom)).arrayBuffer());
    inlay = createInlay({
      ...options,
      ...(wasmBinary && { wasmBinary }),
      ...(script !== undefined && { worker: scripts[script] as () => Worker }),
    });
  },
  /** The same with a backend of the app. */
  createOwn: (options: object, { script = 'own', ...more }: { readonly script?: string } = {}) => {
    const worker = scripts[script] as () => Worker;
    inlay = createInlay({ backends: [inWorker({ name: 'own', worker, options, ...more })] });
  },
  loadFrom: async (url: string) => {
    inlay ??= createInlay();
    model = await inlay.load(url);
  },
  /** Follows a sync server, with a version of the model that comes with the page. */
  follow: async (sync: WebInlayOptions['sync'] & object, embedded: string) => {
    inlay = createInlay({ device: 'cpu', sync });
    model = await inlay.load({ name: 'add', embedded });
    return model.version ?? 'embedded';
  },
  load: async (bytes: readonly number[], options: object = {}) => {
    inlay ??= createInlay();
    model = await inlay.load(Uint8Array.from(bytes), options);
  },
  run: async (values: Values) => {
    const [output] = Object.values(await (model as Model).run(feedsOf(values)));
    return Array.from(output?.data as Float32Array);
  },
  runMany: (list: readonly Values[]) => Promise.all(list.map((values) => api.run(values))),
  askNested: (bytes: readonly number[], feeds: Values) =>
    new Promise((resolve) => {
      const worker = new Worker(new URL('./nested.worker.ts', import.meta.url), { type: 'module' });
      worker.addEventListener('message', ({ data }) => resolve(data));
      worker.postMessage({ bytes, feeds });
    }),
  unload: () => model?.close(),
  info: () => (inlay as Inlay).info(),
  close: () => inlay?.close(),
  /** What another function rejects with. */
  fault: async (name: string, ...args: readonly unknown[]): Promise<Fault | undefined> => {
    try {
      await (api as unknown as Record<string, (...list: readonly unknown[]) => unknown>)[name]?.(...args);
      return undefined;
    } catch (error) {
      return toFault(error);
    }
  },
  workers: () => workers.length,
  terminate: (index: number) => workers[index]?.terminate(),
  tell: (index: number, message: string) =>
    new Promise((resolve) => {
      const worker = workers[index] as Worker;
      worker.addEventListener('message', ({ data }) => resolve(data), { once: true });
      worker.postMessage(message);
      if (message !== 'ping') resolve(undefined);
    }),
  askShared: (bytes: readonly number[], feeds: Values) =>
    new Promise((resolve) => {
      const { port } = new SharedWorker(new URL('./shared.worker.ts', import.meta.url), { type: 'module' });
      port.addEventListener('message', ({ data }) => resolve(data));
      port.start();
      port.postMessage({ bytes, feeds });
    }),
  runInTurn: async (values: Values, times: number) => {
    for (let i = 0; i < times; i += 1) await api.run(values);
  },
};

/** Numbers as they are, those of inputs of whole numbers as BigInts. */
function feedsOf(values: Values): Record<string, readonly number[] | number | bigint> {
  const { inputs } = (model as Model).signature;
  return Object.fromEntries(
    Object.entries(values).map(([name, value]) => {
      const input = inputs.find((each) => each.name === name);
      return [name, input?.dtype === 'int64' ? BigInt(value[0] as number) : value];
    }),
  );
}

Object.assign(globalThis, { api });
