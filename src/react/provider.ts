import {
  createContext,
  createElement,
  useContext,
  type Context,
  type ReactElement,
  type ReactNode,
} from 'react';
import type { Inlay } from '../engine/inlay.ts';
import { cacheOf } from './cache.ts';

const InlayContext: Context<Inlay | undefined> = /* @__PURE__ */ createContext<Inlay | undefined>(undefined);

/** Properties of {@link InlayProvider}. */
export interface InlayProviderProps {
  /** The host creates it, outside of components, and closes it. */
  readonly inlay: Inlay;
  readonly children?: ReactNode;
}

/**
 * Gives an Inlay to the hooks of the components inside. It renders nothing and loads nothing by itself.
 * @example
 * import { createInlay } from 'inlay';
 * import { InlayProvider } from 'inlay/react';
 * import { createElement } from 'react';
 * const inlay = createInlay();
 * const app = createElement(InlayProvider, { inlay }, 'Hello');
 */
export function InlayProvider({ inlay, children }: InlayProviderProps): ReactElement {
  return createElement(InlayContext.Provider, { value: inlay }, children);
}

/**
 * The Inlay of the closest {@link InlayProvider}.
 * @param given is returned instead, if there is one.
 * @throws `TypeError` if there is neither.
 */
export function useInlay(given?: Inlay): Inlay {
  const provided = useContext(InlayContext);
  const inlay = given ?? provided;
  if (inlay !== undefined) return inlay;
  throw new TypeError(
    'There is no Inlay here: put an InlayProvider around, or pass one in the option inlay.',
  );
}

/**
 * Lets go of models that failed to load and that no component shows any more, so that they are loaded anew by the next one:
 * what the reset of an error boundary calls before it renders its children again.
 * @example
 * import { createInlay } from 'inlay';
 * import { resetFailedModels } from 'inlay/react';
 * const inlay = createInlay();
 * const onReset = () => resetFailedModels(inlay);
 */
export function resetFailedModels(inlay: Inlay): void {
  cacheOf(inlay).forgive();
}
