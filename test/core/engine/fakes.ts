import type { Backend, ExecutionProvider, Session, TensorMap } from '../../../src/core/backend.ts';
import type { Platform } from '../../../src/core/platform.ts';
import type { Signature } from '../../../src/core/signature.ts';
import type { Demotions } from '../../../src/engine/demotions.ts';
import { webPlatform } from '../../../src/platform.ts';

/** Real platform with a clock that moves only when told to. */
export function manualClock(): Platform & { advance(ms: number): void } {
  let time = 0;
  // Nothing is remembered of a machine that is not named; browsers name theirs.
  const { hardware: _, cores: __, ...platform } = webPlatform('test');
  return {
    ...platform,
    now: () => time,
    monotonicMs: () => time,
    advance: (ms) => {
      time += ms;
    },
  };
}

/** Nothing ever broke down. */
export const noDemotions: Demotions = {
  read: async () => {},
  refusal: () => undefined,
  count: () => undefined,
};

export interface FakeBackendOptions {
  readonly name?: string;
  readonly signature?: Signature;
  readonly providers?: readonly ExecutionProvider[] | Error;
  /** Throws to refuse a provider. */
  readonly onCreate?: (provider: string) => void;
  readonly onRun?: (feeds: TensorMap, provider: string) => TensorMap | Promise<TensorMap>;
}

const VECTOR: Signature = {
  inputs: [{ name: 'x', dtype: 'float32', shape: ['batch', 2] }],
  outputs: [{ name: 'y', dtype: 'float32', shape: ['batch', 2] }],
};

/** A backend of which the test decides what happens; it counts its open sessions. */
export function fakeBackend(options: FakeBackendOptions = {}): Backend & { readonly open: Set<Session> } {
  const open = new Set<Session>();
  return {
    name: options.name ?? 'fake',
    open,
    providers: async () => {
      if (options.providers instanceof Error) throw options.providers;
      return options.providers ?? [{ name: 'cpu', device: 'cpu' }];
    },
    createSession: async (_source, { provider }) => {
      options.onCreate?.(provider);
      const session: Session = {
        signature: options.signature ?? VECTOR,
        provider,
        placement: 'inline',
        run: async (feeds) => options.onRun?.(feeds, provider) ?? { y: feeds['x'] as TensorMap[string] },
        release: async () => {
          open.delete(session);
        },
      };
      open.add(session);
      return session;
    },
    close: async () => {},
  };
}
