/** A page that follows a sync server, told what to do by its tests. */
// By its path: to the type checker, the name means the entry for Node.
import { createInlay, isInlayError, type Inlay, type Model, type WebInlayOptions } from '../../dist/index.js';

type Embedded = Extract<Parameters<Inlay['load']>[0], { readonly name: string }>['embedded'];

/** How a page starts. */
export interface StartOptions {
  readonly sync: NonNullable<WebInlayOptions['sync']>;
  readonly embedded?: Embedded;
}

let inlay: Inlay | undefined;
let model: Model | undefined;
/** Workers that were started, in order. */
const workers: Worker[] = [];

const start = (): Worker => {
  const worker = new Worker(new URL('../../dist/worker-web.js', import.meta.url), { type: 'module' });
  workers.push(worker);
  return worker;
};

const codeOf = (error: unknown): string => (isInlayError(error) ? error.code : String(error));

const api = {
  /** Loads the model. @returns its version, or why there is none. */
  start: async ({ sync, embedded }: StartOptions): Promise<string> => {
    inlay = createInlay({ device: 'cpu', worker: start, sync });
    try {
      model = await inlay.load({ name: 'digits', ...(embedded !== undefined && { embedded }) });
      return model.version ?? 'embedded';
    } catch (error) {
      return codeOf(error);
    }
  },
  /** The version that answers, and what it makes of 1. */
  ask: async (): Promise<readonly [string | undefined, number]> => {
    const version = model?.version;
    const { y } = await (model as Model).run({ x: [1, 2] });
    return [version, Number(y?.data[0])];
  },
  check: async (): Promise<string> => {
    try {
      await inlay?.checkForUpdates();
      return 'checked';
    } catch (error) {
      return codeOf(error);
    }
  },
  /** What the slots of the model hold. */
  slots: async () => {
    const state = (await inlay?.updates.state())?.models['digits'];
    return {
      running: state?.running,
      committed: state?.committed?.release.version,
      trial: state?.trial?.release.version,
      rejected: state?.rejected.map(({ version, reason }) => `${version} ${reason}`),
      strikes: Object.values(state?.strikes ?? {}),
      markers: state?.markers.map(({ phase, isSettled = false }) => [phase, isSettled]),
      lastError: state?.lastError === undefined ? undefined : codeOf(state.lastError),
    };
  },
  /** Bytes of the model that are there of the download under way. */
  loadedBytes: async () => (await inlay?.updates.state())?.transfers[0]?.loadedBytes ?? 0,
  history: async () =>
    (await inlay?.updates.history())?.map(({ type, version = '', reason = '' }) =>
      `${type} ${version} ${reason}`.trim(),
    ),
  degraded: () => inlay?.info().store.degraded,
  workers: () => workers.length,
  terminate: (index: number) => workers[index]?.terminate(),
  close: () => inlay?.close(),
};

Object.assign(globalThis, { api });
