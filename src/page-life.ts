/** How the life of a page ends: people look elsewhere, close it, or go on to another. None of that is a crash. */

/** What of a page is used. It is missing in workers and in runtimes without pages. */
interface PageGlobals {
  readonly document?: EventSource & { readonly visibilityState: string };
  readonly localStorage: {
    getItem(key: string): string | null;
    setItem(key: string, value: string): void;
  };
  addEventListener(type: string, listener: (event: PageEvent) => void): void;
  removeEventListener(type: string, listener: (event: PageEvent) => void): void;
}

type EventSource = Pick<PageGlobals, 'addEventListener' | 'removeEventListener'>;

interface PageEvent {
  /** Whether the page has come back from the cache of the browser, or may. */
  readonly persisted?: boolean;
}

/** The life of one page. */
export interface PageLife {
  /**
   * Calls `listener` when the page goes out of sight, or goes for good.
   * @returns unsubscribes.
   */
  onHide(listener: () => void): () => void;
  /** Notes it under a name when people leave this page. */
  noteLeaving(id: string): void;
  /** Whether people have left the page of that name. */
  wasLeft(id: string): boolean;
}

/** Key of the names of pages that were left, and how many are kept. */
const KEY = 'inlay-left';
const MOST_KEPT = 50;

/** Finds out how the life of this page goes; `undefined` where there is no page. */
export function openPageLife(): PageLife | undefined {
  const page = globalThis as unknown as PageGlobals;
  const { document } = page;
  if (document === undefined) return undefined;

  /** Of all that keeps things, only `localStorage` has kept them when a page ends right after. */
  const left = (): readonly string[] => {
    try {
      return page.localStorage.getItem(KEY)?.split(' ') ?? [];
    } catch {
      // Forbidden: then a page that is closed while it opens a model looks like one that has crashed.
      return [];
    }
  };
  const setLeft = (id: string, isLeft: boolean): void => {
    const names = [...left().filter((name) => name !== id), ...(isLeft ? [id] : [])];
    try {
      page.localStorage.setItem(KEY, names.slice(-MOST_KEPT).join(' '));
    } catch {
      // Forbidden, or full.
    }
  };
  return {
    onHide: (listener) => {
      const look = (): void => {
        if (document.visibilityState === 'hidden') listener();
      };
      document.addEventListener('visibilitychange', look);
      page.addEventListener('pagehide', listener);
      return () => {
        document.removeEventListener('visibilitychange', look);
        page.removeEventListener('pagehide', listener);
      };
    },
    noteLeaving: (id) => {
      page.addEventListener('pagehide', () => {
        setLeft(id, true);
      });
      page.addEventListener('pageshow', ({ persisted }) => {
        if (persisted === true) setLeft(id, false);
      });
    },
    wasLeft: (id) => left().includes(id),
  };
}
