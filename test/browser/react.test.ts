import * as ort from 'onnxruntime-web/wasm';
import {
  act,
  Component,
  createElement as h,
  startTransition,
  StrictMode,
  Suspense,
  useState,
  type ReactElement,
  type ReactNode,
} from 'react';
import { createRoot, hydrateRoot, type Root } from 'react-dom/client';
import { renderToString } from 'react-dom/server';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { onnxruntimeWeb } from '../../src/backends/onnxruntime-web.ts';
import { createEmitter } from '../../src/core/events.ts';
import { createInlay, type Inlay, type LoadOptions, type Model, type ModelEvents } from '../../src/index.ts';
import {
  InlayProvider,
  resetFailedModels,
  useModel,
  useModelSuspense,
  useRun,
  type LoadProgress,
  type ModelState,
  type RunResult,
  type UseModelOptions,
} from '../../src/react.ts';
import { addModel } from '../conformance/backend-models.ts';

ort.env.wasm.numThreads = 1;
Object.assign(globalThis, { IS_REACT_ACT_ENVIRONMENT: true });

const reference = addModel();
const feeds = { a: [[1, 2, 3, 4]], b: [[10, 20, 30, 40]] };

/** An Inlay with a real backend, which counts its loads and lets tests come in between. */
interface Watched extends Inlay {
  readonly loads: Promise<Model>[];
  readonly options: LoadOptions[];
  /** Is called before each load; what it throws fails the load. */
  before: () => unknown;
  /** Changes each model. */
  dress: (model: Model) => Model;
}

function watch(inlay: Inlay): Watched {
  const watched: Watched = {
    ...inlay,
    loads: [],
    options: [],
    before: () => {},
    dress: (model) => model,
    load: (async (asked, options) => {
      const loading = Promise.resolve(watched.before()).then(() => inlay.load(asked, options));
      const dressed = loading.then((model) => watched.dress(model));
      watched.loads.push(dressed);
      watched.options.push(options ?? {});
      return dressed;
    }) as Inlay['load'],
  };
  return watched;
}

let inlay: Watched;
let container: HTMLElement;
let root: Root;
const caught: unknown[] = [];

beforeEach(() => {
  inlay = watch(createInlay({ backends: [onnxruntimeWeb({ ort })] }));
  container = document.createElement('div');
  document.body.append(container);
  root = createRoot(container, { onCaughtError: (error) => caught.push(error) });
  vi.spyOn(console, 'error');
});

afterEach(async () => {
  await act(async () => root.unmount());
  // Whatever happened to it, a model leaves with the last component.
  await vi.waitFor(() => expect(inlay.info().models).toEqual([]));
  expect(console.error).not.toHaveBeenCalled();
  vi.restoreAllMocks();
  vi.useRealTimers();
  container.remove();
  caught.length = 0;
  await inlay.close();
});

const provide = (...children: ReactNode[]): ReactElement => h(InlayProvider, { inlay }, ...children);
const render = (...children: ReactNode[]): Promise<void> =>
  act(async () => root.render(provide(...children)));
const settle = (): Promise<unknown> => act(() => Promise.allSettled(inlay.loads));
const text = (): string | null => container.textContent;

/** What follows something else. Progress renders in between. */
const stepsOf = <T>(states: readonly T[]): T[] =>
  states.filter((state, at) => at === 0 || state !== states[at - 1]);

/** Renders the status of a model, and shows its state to the test. */
function Status({
  of = reference,
  onState = () => {},
  ...options
}: UseModelOptions & {
  readonly of?: Parameters<typeof useModel>[0];
  readonly onState?: (state: ModelState) => void;
}): string {
  const state = useModel(of, options);
  onState(state);
  return state.error instanceof Error ? `error: ${state.error.message}` : state.status;
}

function Inputs({ of = reference }: { readonly of?: Parameters<typeof useModel>[0] }): string {
  return useModelSuspense(of)
    .signature.inputs.map(({ name }) => name)
    .join();
}

class Boundary extends Component<{ readonly children?: ReactNode }, { readonly error?: Error }> {
  override readonly state: { readonly error?: Error } = {};
  static getDerivedStateFromError(error: Error): { readonly error: Error } {
    return { error };
  }
  override render(): ReactNode {
    const { error } = this.state;
    if (error === undefined) return this.props.children;
    const onClick = (): void => {
      resetFailedModels(inlay);
      this.setState({ error: undefined } as never);
    };
    return h('button', { onClick }, `caught: ${error.message}`);
  }
}

describe('useModel', () => {
  it('loads a model that runs', async () => {
    const states: ModelState[] = [];
    await render(h(Status, { onState: (state) => states.push(state) }));
    expect(text()).toBe('loading');
    await settle();
    expect(text()).toBe('ready');
    const { y } = (await states.at(-1)?.model?.run(feeds)) ?? {};
    expect(y?.toArray()).toEqual([[11, 22, 33, 44]]);
    expect(stepsOf(states.map(({ status }) => status))).toEqual(['loading', 'ready']);
    expect(inlay.info().models).toHaveLength(1);
  });

  it('loads once in strict mode', async () => {
    await act(async () => root.render(h(StrictMode, null, provide(h(Status)))));
    await settle();
    expect(text()).toBe('ready');
    expect(inlay.loads).toHaveLength(1);
    expect(inlay.options[0]?.signal?.aborted).toBe(false);
  });

  it('shares one model between components until the last is gone', async () => {
    await render(h(Status, { key: 'one' }), h(Status, { key: 'two' }));
    await settle();
    expect(text()).toBe('readyready');
    expect(inlay.loads).toHaveLength(1);
    const model = await (inlay.loads[0] as Promise<Model>);
    await render(h(Status, { key: 'two' }));
    await new Promise((resolve) => setTimeout(resolve));
    await expect(model.run(feeds)).resolves.toHaveProperty('y');
    await render();
    await vi.waitFor(() => expect(inlay.info().models).toEqual([]));
    await expect(model.run(feeds)).rejects.toMatchObject({ code: 'ERR_INLAY_CLOSED' });
  });

  it('hands a model over to a component that comes as another goes', async () => {
    await render(h(Status, { key: 'before' }));
    await settle();
    await render(h(Status, { key: 'after' }));
    await new Promise((resolve) => setTimeout(resolve));
    expect(text()).toBe('ready');
    expect(inlay.loads).toHaveLength(1);
  });

  it('gives up a load that nobody waits for', async () => {
    let open = (): void => {};
    inlay.before = () => new Promise<void>((resolve) => (open = resolve));
    await render(h(Status));
    await render();
    await vi.waitFor(() => expect(inlay.options[0]?.signal?.aborted).toBe(true));
    open();
    await expect(inlay.loads[0]).rejects.toMatchObject({ name: 'AbortError' });
    inlay.before = () => {};
    await render(h(Status));
    await settle();
    expect(text()).toBe('ready');
  });

  it('closes a model that came although its load was given up', async () => {
    let open = (): void => {};
    const gate = new Promise<void>((resolve) => (open = resolve));
    let model: Model | undefined;
    const other = createInlay({ backends: [onnxruntimeWeb({ ort })] });
    inlay.load = (async () => {
      await gate;
      // Without the signal: as if the abort came a moment after the model.
      return (model = await other.load(reference));
    }) as Inlay['load'];
    await render(h(Status));
    await render();
    await new Promise((resolve) => setTimeout(resolve));
    open();
    await vi.waitFor(() => expect(model).toBeDefined());
    await vi.waitFor(() => expect(other.info().models).toEqual([]));
    await other.close();
  });

  it('gives the error of a load, and loads again when asked to', async () => {
    const states: ModelState[] = [];
    inlay.before = async () => {
      throw new Error('offline');
    };
    await render(h(Status, { onState: (state) => states.push(state) }));
    await settle();
    expect(text()).toBe('error: offline');
    inlay.before = () => {};
    await act(async () => states.at(-1)?.retry());
    await settle();
    expect(text()).toBe('ready');
    expect(stepsOf(states.map(({ status }) => status))).toEqual(['loading', 'error', 'loading', 'ready']);
    expect(new Set(states.map(({ retry }) => retry)).size).toBe(1);
    await act(async () => states.at(-1)?.retry());
    expect(inlay.loads).toHaveLength(2);
  });

  it('says what is wrong with a model that cannot be loaded', async () => {
    await render(h(Status, { of: new Uint8Array([1, 2, 3]) }));
    await settle();
    expect(text()).toMatch(/^error: .*model/);
  });

  it('loads once for references and options that mean the same', async () => {
    const url = URL.createObjectURL(new Blob([reference as BlobPart]));
    const element = (round: number): ReactElement =>
      round % 2 === 0
        ? h(Status, { of: url, device: ['wasm'], placement: 'inline' })
        : h(Status, { of: new URL(url), placement: 'inline', device: ['wasm'] });
    for (let round = 0; round < 6; round += 1) await render(element(round));
    await settle();
    for (let round = 0; round < 6; round += 1) await render(element(round));
    expect(text()).toBe('ready');
    expect(inlay.loads).toHaveLength(1);
    URL.revokeObjectURL(url);
  });

  it('loads another model when the reference changes, and lets the old one go', async () => {
    await render(h(Status));
    await settle();
    await render(h(Status, { of: addModel() }));
    expect(text()).toBe('loading');
    await settle();
    expect(text()).toBe('ready');
    expect(inlay.loads).toHaveLength(2);
    await vi.waitFor(() => expect(inlay.info().models).toHaveLength(1));
  });

  it('keeps a model for a while where that is asked for', async () => {
    await render(h(Status, { keepMs: 1000 }));
    await settle();
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    await render();
    vi.advanceTimersByTime(999);
    await render(h(Status, { keepMs: 1000 }));
    vi.advanceTimersByTime(5000);
    expect(text()).toBe('ready');
    expect(inlay.loads).toHaveLength(1);
    await render();
    vi.advanceTimersByTime(1000);
    vi.useRealTimers();
  });

  it('is rendered again when another version answers', async () => {
    const emitter = createEmitter<ModelEvents>();
    let version = '1.0.0';
    inlay.dress = (model) =>
      Object.defineProperties({ ...model, on: emitter.on }, { version: { get: () => version } });
    const seen: (string | undefined)[] = [];
    await render(h(Status, { onState: (state) => seen.push(state.version) }));
    await settle();
    await act(async () => {
      version = '1.1.0';
      emitter.emit('swapped', { from: '1.0.0', to: '1.1.0' });
    });
    expect(stepsOf(seen)).toEqual([undefined, '1.0.0', '1.1.0']);
  });

  it('shows progress in steps that can be seen', async () => {
    let open = (): void => {};
    inlay.before = () => new Promise<void>((resolve) => (open = resolve));
    const seen: (LoadProgress | undefined)[] = [];
    await render(h(Status, { onState: (state) => seen.push(state.progress) }));
    const { onProgress } = inlay.options[0] as { onProgress?: (progress: LoadProgress) => void };
    for (let loadedBytes = 0; loadedBytes <= 1000; loadedBytes += 1) {
      await act(async () => onProgress?.({ phase: 'download', loadedBytes, totalBytes: 1000 }));
    }
    await act(async () => onProgress?.({ phase: 'open', loadedBytes: 1000 }));
    expect(seen).toHaveLength(1 + 101 + 1);
    expect(seen.at(-1)).toEqual({ phase: 'open', loadedBytes: 1000 });
    open();
    await settle();
    await act(async () => onProgress?.({ phase: 'warm-up', loadedBytes: 1000 }));
    expect(text()).toBe('ready');
  });

  it('needs an Inlay', async () => {
    await act(async () => root.render(h(Boundary, null, h(Status))));
    expect(text()).toMatch(/caught: There is no Inlay here/);
    await act(async () => root.render(h(Status, { inlay, key: 'given' })));
    await settle();
    expect(text()).toBe('ready');
  });

  it('leaves nothing behind, however components come and go', async () => {
    for (let round = 0; round < 12; round += 1) {
      const count = (round * 7) % 4;
      const all = Array.from({ length: count }, (_, index) => h(Status, { key: `${round % 3} ${index}` }));
      await act(async () => root.render(h(StrictMode, null, provide(...all))));
      if (round % 3 === 0) await settle();
    }
    await render();
    await vi.waitFor(() => expect(inlay.info().models).toEqual([]));
  });
});

describe('useModelSuspense', () => {
  const fallback = 'waiting';

  it.each([[true], [false]])('suspends until the model is there; strict mode: %s', async (isStrict) => {
    const tree = provide(h(Suspense, { fallback }, h(Inputs, { key: 1 }), h(Inputs, { key: 2 })));
    await act(async () => root.render(isStrict ? h(StrictMode, null, tree) : tree));
    expect(text()).toBe('waiting');
    await settle();
    expect(text()).toBe('a,ba,b');
    expect(inlay.loads).toHaveLength(1);
  });

  it('throws to the error boundary, whose reset loads again', async () => {
    inlay.before = async () => {
      throw new Error('offline');
    };
    await render(h(Boundary, null, h(Suspense, { fallback }, h(Inputs))));
    await settle();
    expect(text()).toBe('caught: offline');
    expect(inlay.loads).toHaveLength(1);
    inlay.before = () => {};
    await act(async () => container.querySelector('button')?.click());
    expect(text()).toBe('waiting');
    await settle();
    expect(text()).toBe('a,b');
    expect(inlay.loads).toHaveLength(2);
  });

  it('keeps what is shown while a transition loads another model', async () => {
    let change: (of: Uint8Array) => void = () => {};
    function Choice(): ReactElement {
      const [of, setOf] = useState(reference);
      change = setOf;
      return h(Suspense, { fallback }, h(Inputs, { of }));
    }
    await render(h(Choice));
    await settle();
    let open = (): void => {};
    inlay.before = () => new Promise<void>((resolve) => (open = resolve));
    await act(async () => startTransition(() => change(addModel())));
    expect(text()).toBe('a,b');
    expect(inlay.info().models).toHaveLength(1);
    open();
    await settle();
    expect(text()).toBe('a,b');
    expect(inlay.loads).toHaveLength(2);
    await vi.waitFor(() => expect(inlay.info().models).toHaveLength(1));
  });

  it('closes a model for which no component came', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    await render(h(Suspense, { fallback }, h(Inputs)));
    await render();
    await settle();
    expect(inlay.info().models).toHaveLength(1);
    vi.advanceTimersByTime(10_000);
    vi.useRealTimers();
    await vi.waitFor(() => expect(inlay.info().models).toEqual([]));
  });

  it('goes on in the browser from what a server rendered', async () => {
    const tree = provide(h(Suspense, { fallback }, h(Inputs)), h(Status));
    container.innerHTML = renderToString(tree);
    expect(text()).toBe('waitingloading');
    expect(inlay.loads).toHaveLength(0);
    const recovered: unknown[] = [];
    await act(async () => root.unmount());
    await act(async () => {
      root = hydrateRoot(container, tree, { onRecoverableError: (error) => recovered.push(error) });
    });
    await settle();
    expect(text()).toBe('a,bready');
    expect(inlay.loads).toHaveLength(1);
    expect(recovered).toHaveLength(1);
  });
});

describe('useRun', () => {
  let result: RunResult;
  function Live({ model, obsolete = 'finish' }: { model?: Model; obsolete?: 'finish' | 'abort' }): string {
    result = useRun(model, { obsolete });
    const [first] = (result.outputs?.['y']?.data ?? []) as Float32Array;
    const { error } = result;
    return `${String(first)} ${result.isRunning ? 'running' : 'idle'} ${error instanceof Error ? error.message : ''}`;
  }
  const feed = (value: number): { a: number[][]; b: number[][] } => ({
    a: [[value, 0, 0, 0]],
    b: [[0, 0, 0, 0]],
  });

  /** A model whose runs wait for the test. */
  async function gated(): Promise<{ model: Model; runs: { signal: AbortSignal; open: () => void }[] }> {
    const model = await inlay.load(reference);
    const runs: { signal: AbortSignal; open: () => void }[] = [];
    const run = ((given, options) =>
      new Promise((resolve, reject) => {
        const signal = options?.signal as AbortSignal;
        signal.addEventListener('abort', () => reject(signal.reason as Error));
        runs.push({ signal, open: () => resolve(model.run(given)) });
      })) as Model['run'];
    return { model: { ...model, run }, runs };
  }
  const closeModels = async (): Promise<void> => {
    for (const loading of inlay.loads) await (await loading).close();
  };

  it('runs a model that comes later on the newest feeds', async () => {
    await render(h(Live));
    await act(async () => result.run(feed(1)));
    await act(async () => result.run(feed(2)));
    expect(text()).toBe('undefined idle ');
    const model = await inlay.load(reference);
    await render(h(Live, { model }));
    await vi.waitFor(async () => {
      await act(async () => {});
      expect(text()).toBe('2 idle ');
    });
    expect(model.stats().inFlight).toBe(0);
    await closeModels();
  });

  it('has one call at a time, and drops what waits for newer feeds', async () => {
    const { model, runs } = await gated();
    await render(h(Live, { model }));
    for (const value of [1, 2, 3]) await act(async () => result.run(feed(value)));
    expect(runs).toHaveLength(1);
    await act(async () => runs[0]?.open());
    await vi.waitFor(async () => {
      await act(async () => {});
      expect(text()).toBe('1 running ');
    });
    await act(async () => runs[1]?.open());
    await vi.waitFor(async () => {
      await act(async () => {});
      expect(text()).toBe('3 idle ');
    });
    expect(runs).toHaveLength(2);
    await closeModels();
  });

  it('gives up the call under way where that is asked for', async () => {
    const { model, runs } = await gated();
    await render(h(Live, { model, obsolete: 'abort' }));
    for (const value of [1, 2, 3]) await act(async () => result.run(feed(value)));
    expect(runs.map(({ signal }) => signal.aborted)).toEqual([true, true, false]);
    await act(async () => runs[2]?.open());
    await vi.waitFor(async () => {
      await act(async () => {});
      expect(text()).toBe('3 idle ');
    });
    await closeModels();
  });

  it('gives up the call under way when the component goes, also in strict mode', async () => {
    const { model, runs } = await gated();
    const tree = h(StrictMode, null, provide(h(Live, { model })));
    await act(async () => root.render(tree));
    const { run } = result;
    await act(async () => run(feed(1)));
    expect(result.run).toBe(run);
    await render();
    expect(runs.map(({ signal }) => signal.aborted)).toEqual([true]);
    run(feed(2));
    expect(runs).toHaveLength(1);
    await closeModels();
  });

  it('shows the error of a call until one is answered', async () => {
    const model = await inlay.load(reference);
    await render(h(Live, { model }));
    await act(async () => result.run({ a: [[1, 2, 3, 4]] }));
    expect(text()).toMatch(/^undefined idle .*b/);
    await act(async () => result.run(feed(5)));
    await vi.waitFor(async () => {
      await act(async () => {});
      expect(text()).toBe('5 idle ');
    });
    await closeModels();
  });
});
