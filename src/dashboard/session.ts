/** The API key of this tab. It is kept until the tab is closed, and sent as a header: there are no cookies. */

const NAME = 'inlay-key';

/** Where the key of this tab is. */
export interface Session {
  key(): string | undefined;
  enter(key: string): void;
  leave(): void;
}

/** Opens the session of this tab. A key in the address, `#key=…`, is taken over and removed from it. */
export function createSession(): Session {
  const given = /^#key=(\S+)$/.exec(location.hash)?.[1];
  if (given !== undefined) {
    sessionStorage.setItem(NAME, decodeURIComponent(given));
    history.replaceState(undefined, '', `${location.pathname}#/`);
  }
  return {
    key: () => sessionStorage.getItem(NAME) ?? undefined,
    enter: (key) => {
      sessionStorage.setItem(NAME, key.trim());
    },
    leave: () => {
      sessionStorage.removeItem(NAME);
    },
  };
}
