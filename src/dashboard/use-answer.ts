import { createContext } from 'preact';
import { useCallback, useContext, useEffect, useState } from 'preact/hooks';
import type { Principal } from '../server/access.ts';
import { ApiError, type Api } from './api.ts';

/** How often what is seen is asked for again, milliseconds. */
const REFRESH_MS = 10_000;

/** What every page works with. */
export interface Surroundings {
  readonly api: Api;
  /** Whose key it is. */
  readonly me: Principal;
  /** Whether the key may change anything. The server checks it in any case. */
  readonly mayChange: boolean;
  /** What has to be asked with, by a key that is limited to one model or channel. */
  readonly limits: { readonly model?: string; readonly channel?: string };
  /** The key is not valid any more. */
  readonly signOut: () => void;
}

/** Hands {@link Surroundings} down. */
export const Surround = createContext<Surroundings | undefined>(undefined);

/** @returns what every page works with. */
export function useSurroundings(): Surroundings {
  const present = useContext(Surround);
  if (present === undefined) throw new TypeError('A page is shown inside of the app.');
  return present;
}

/** An answer that is kept up to date. */
export interface Answered<Answer> {
  readonly value: Answer | undefined;
  readonly error: ApiError | undefined;
  /** Asks again now. */
  readonly again: () => void;
}

/**
 * Asks for something, and again every ten seconds while the page is seen. The last answer stays while a newer one is on its
 * way, or does not come.
 * @param path - below the admin API; `undefined` asks for nothing yet.
 * @param spanMs - adds `from` and `to`: so long up to the moment of asking.
 */
export function useAnswer<Answer>(
  path: string | undefined,
  query: Readonly<Record<string, string | number | undefined>> = {},
  spanMs?: number,
): Answered<Answer> {
  const { api, signOut } = useSurroundings();
  const asked = JSON.stringify([path, query, spanMs]);
  const [state, setState] = useState<{ asked: string; value?: Answer; error?: ApiError }>({ asked });
  const [round, setRound] = useState(0);
  const again = useCallback(() => {
    setRound((past) => past + 1);
  }, []);
  useEffect(() => {
    if (path === undefined) return undefined;
    let isOver = false;
    let isAsking = false;
    let timer: number | undefined;
    const ask = async (): Promise<void> => {
      isAsking = true;
      try {
        const to = Date.now();
        const span = spanMs === undefined ? {} : { from: to - spanMs, to };
        const value = await api.get<Answer>(path, { ...query, ...span });
        if (!isOver) setState({ asked, value });
      } catch (error) {
        if (isOver || !(error instanceof ApiError)) return;
        if (error.status === 401) signOut();
        else setState((past) => ({ ...(past.asked === asked ? past : {}), asked, error }));
      }
      isAsking = false;
      if (!isOver) timer = window.setTimeout(askIfSeen, REFRESH_MS);
    };
    const askIfSeen = (): void => {
      if (document.visibilityState === 'visible' && !isAsking) void ask();
    };
    const onSeen = (): void => {
      window.clearTimeout(timer);
      askIfSeen();
    };
    document.addEventListener('visibilitychange', onSeen);
    void ask();
    return () => {
      isOver = true;
      window.clearTimeout(timer);
      document.removeEventListener('visibilitychange', onSeen);
    };
  }, [asked, api, round]);
  const isThis = state.asked === asked;
  return { value: isThis ? state.value : undefined, error: isThis ? state.error : undefined, again };
}
