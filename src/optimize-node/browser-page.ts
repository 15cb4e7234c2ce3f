/**
 * What runs inside of the page. The functions here are sent to it as text, so that each stands for itself: none uses
 * anything but its arguments and what every browser has.
 */

/** Puts a value of plain data and typed arrays into bytes: the length of a JSON text, that text, the arrays. */
export function packMessage(value: unknown): Uint8Array<ArrayBuffer> {
  const arrays: Uint8Array[] = [];
  let length = 0;
  const text = JSON.stringify(value, (_, one: unknown) => {
    if (!ArrayBuffer.isView(one)) return one;
    arrays.push(new Uint8Array(one.buffer, one.byteOffset, one.byteLength));
    length += one.byteLength;
    return { $bytes: [length - one.byteLength, one.byteLength] };
  });
  const head = new TextEncoder().encode(text);
  const bytes = new Uint8Array(4 + head.length + length);
  new DataView(bytes.buffer).setUint32(0, head.length, true);
  bytes.set(head, 4);
  let at = 4 + head.length;
  for (const array of arrays) {
    bytes.set(array, at);
    at += array.length;
  }
  return bytes;
}

/** Reads what {@link packMessage} wrote. Arrays come back as bytes of their own. */
export function unpackMessage(bytes: Uint8Array): unknown {
  const headLength = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
  const start = 4 + headLength;
  return JSON.parse(new TextDecoder().decode(bytes.subarray(4, start)), (_, one: unknown) => {
    const range = typeof one === 'object' && one !== null && '$bytes' in one ? one.$bytes : undefined;
    if (!Array.isArray(range)) return one;
    const [offset, length] = range as [number, number];
    return new Uint8Array(bytes).slice(start + offset, start + offset + length);
  });
}

/** What the page needs to know. */
export interface PageSettings {
  readonly device: 'webgpu' | 'wasm';
  readonly threads: number;
  /** Query that every request has, so that no other page can ask or answer. */
  readonly query: string;
  /** Name of the typed array that holds the elements of each type. */
  readonly storages: Readonly<Record<string, string>>;
}

interface PageTensor {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly data: Uint8Array<ArrayBuffer> | readonly string[];
}

interface PageQuestion {
  readonly id: number;
  readonly verb: string;
  readonly body: {
    readonly session: number;
    readonly model: Uint8Array;
    readonly options: { readonly level?: string };
    readonly feeds: Readonly<Record<string, PageTensor>>;
    readonly outputs?: readonly string[];
    readonly runs: number;
  };
}

interface PageOrtTensor {
  readonly type: string;
  readonly dims: readonly number[];
  readonly data: unknown;
}

interface PageValue {
  readonly name: string;
  readonly isTensor: boolean;
}

interface PageSession {
  readonly inputMetadata: readonly PageValue[];
  readonly outputMetadata: readonly PageValue[];
  run(feeds: object, fetches: readonly string[]): Promise<Readonly<Record<string, PageOrtTensor>>>;
  release(): Promise<void>;
}

interface PageOrt {
  readonly env: { readonly wasm: { numThreads?: number }; readonly versions?: { readonly web?: string } };
  readonly InferenceSession: { create(model: Uint8Array, options: object): Promise<PageSession> };
}

interface PageNavigator {
  readonly userAgent: string;
  readonly gpu?: { requestAdapter(): Promise<{ readonly info?: object } | null> };
}

/** Asks the server for questions and answers them, until it is gone. */
export async function servePage(
  ort: PageOrt,
  { device, threads, query, storages }: PageSettings,
  pack: typeof packMessage,
  unpack: typeof unpackMessage,
): Promise<void> {
  const sessions = new Map<number, PageSession>();
  let last = 0;
  ort.env.wasm.numThreads = threads;

  const toOrt = ({ dtype, shape, data }: PageTensor): object => {
    const constructors = globalThis as unknown as Record<string, new (buffer: ArrayBuffer) => object>;
    const Storage = constructors[storages[dtype] ?? ''];
    const held = data instanceof Uint8Array && Storage !== undefined ? new Storage(data.buffer) : data;
    return { type: dtype, dims: shape, data: held, location: 'cpu' };
  };
  const toFeeds = (feeds: PageQuestion['body']['feeds']): object =>
    Object.fromEntries(Object.entries(feeds).map(([name, tensor]) => [name, toOrt(tensor)]));
  const sessionOf = (body: PageQuestion['body']): PageSession => {
    const session = sessions.get(body.session);
    if (session === undefined) throw new Error('the session was released');
    return session;
  };
  const outputsOf = (session: PageSession): readonly string[] =>
    session.outputMetadata.filter((value) => value.isTensor).map((value) => value.name);

  const verbs: Readonly<Record<string, (body: PageQuestion['body']) => Promise<unknown>>> = {
    open: async (body) => {
      const session = await ort.InferenceSession.create(body.model, {
        executionProviders: [device],
        graphOptimizationLevel: body.options.level ?? 'all',
        logSeverityLevel: 4,
      });
      last += 1;
      sessions.set(last, session);
      return { session: last, inputs: session.inputMetadata, outputs: session.outputMetadata };
    },
    run: async (body) => {
      const session = sessionOf(body);
      const outputs = await session.run(toFeeds(body.feeds), body.outputs ?? outputsOf(session));
      return Object.fromEntries(
        Object.entries(outputs).map(([name, { type, dims, data }]) => [
          name,
          { dtype: type, shape: dims, data },
        ]),
      );
    },
    time: async (body) => {
      const session = sessionOf(body);
      const feeds = toFeeds(body.feeds);
      const fetches = outputsOf(session);
      const times: number[] = [];
      for (let run = 0; run < body.runs; run += 1) {
        const startedMs = performance.now();
        await session.run(feeds, fetches);
        times.push(performance.now() - startedMs);
      }
      return times;
    },
    release: async (body) => {
      const session = sessionOf(body);
      sessions.delete(body.session);
      await session.release();
      return null;
    },
  };

  const post = async (answer: object): Promise<void> => {
    await fetch(`/answer${query}`, { method: 'POST', body: pack(answer) });
  };
  const toError = (error: unknown): object =>
    error instanceof Error
      ? { name: error.name, message: error.message }
      : { name: 'Error', message: String(error) };

  // Its end tells the server that the page is gone, also in the middle of a run.
  void fetch(`/alive${query}`).catch(() => undefined);
  try {
    const { navigator } = globalThis as unknown as { readonly navigator: PageNavigator };
    const adapter = device === 'webgpu' ? await navigator.gpu?.requestAdapter() : undefined;
    const info: Record<string, unknown> = {};
    for (const name in adapter?.info) info[name] = Reflect.get(adapter.info, name);
    const isIsolated = (globalThis as { crossOriginIsolated?: boolean }).crossOriginIsolated === true;
    const hasGpu = adapter !== undefined && adapter !== null;
    const result = { info, hasGpu, isIsolated, version: ort.env.versions?.web, agent: navigator.userAgent };
    await post({ id: 0, result });
    for (;;) {
      const response = await fetch(`/question${query}`);
      const { id, verb, body } = unpack(new Uint8Array(await response.arrayBuffer())) as PageQuestion;
      try {
        await post({ id, result: await verbs[verb]?.(body) });
      } catch (error) {
        await post({ id, error: toError(error) });
      }
    }
  } catch {
    // The server is gone, and with it everyone who could be told.
  }
}
