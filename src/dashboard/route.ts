import { useEffect, useState } from 'preact/hooks';

/** A page, and what it is about: `#/rollouts/stable/digits`. */
export interface Route {
  readonly page: string;
  readonly rest: readonly string[];
}

/** Where the address points. */
export function useRoute(): Route {
  const [hash, setHash] = useState(location.hash);
  useEffect(() => {
    const onChange = (): void => {
      setHash(location.hash);
    };
    window.addEventListener('hashchange', onChange);
    return () => {
      window.removeEventListener('hashchange', onChange);
    };
  }, []);
  const [page = '', ...rest] = hash.replace(/^#\/?/, '').split('/').map(decodeURIComponent);
  return { page, rest };
}

/** The address of a page. */
export function linkTo(...parts: readonly string[]): string {
  return `#/${parts.map(encodeURIComponent).join('/')}`;
}
