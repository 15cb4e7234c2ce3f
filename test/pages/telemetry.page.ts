/** A page that follows a sync server and reports to it, told what to do by its tests. */
// By its path: to the type checker, the name means the entry for Node.
import { createInlay, type Inlay, type Model, type WebInlayOptions } from '../../dist/index.js';
import { openIndexedDbStore } from '../../dist/stores/indexeddb.js';
import { openOpfsStore } from '../../dist/stores/opfs.js';

/** How a page starts. */
export interface StartOptions {
  readonly sync: NonNullable<WebInlayOptions['sync']>;
  /** Absent: an app that has no telemetry. */
  readonly telemetry?: NonNullable<WebInlayOptions['telemetry']>;
  /** Where things are kept; default: where Inlay finds best. */
  readonly store?: 'indexeddb' | 'opfs';
}

const stores = { indexeddb: openIndexedDbStore, opfs: openOpfsStore };

let inlay: Inlay | undefined;
let model: Model | undefined;

const api = {
  start: async ({ sync, telemetry, store }: StartOptions): Promise<void> => {
    inlay = createInlay({
      device: 'cpu',
      placement: 'inline',
      sync,
      ...(telemetry !== undefined && { telemetry }),
      ...(store !== undefined && { store: stores[store]() }),
    });
    model = await inlay.load({ name: 'digits' });
  },
  /** Calls the model so many times, each with inputs of its own. */
  ask: async (times: number): Promise<void> => {
    for (let i = 0; i < times; i += 1) await (model as Model).run({ x: [i, performance.now()] });
  },
  flush: () => inlay?.telemetry.flush(),
  state: () => inlay?.telemetry.state(),
  consent: (consent: 'unset' | 'necessary' | 'full') => inlay?.telemetry.setConsent(consent),
};

Object.assign(globalThis, { api });
