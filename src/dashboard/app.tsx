import type { ComponentChildren, JSX } from 'preact';
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import type { Principal } from '../server/access.ts';
import { ApiError, createApi } from './api.ts';
import { Login } from './login.tsx';
import { Alerts } from './pages/alerts.tsx';
import { Audit } from './pages/audit.tsx';
import { Drift } from './pages/drift.tsx';
import { Health } from './pages/health.tsx';
import { Overview } from './pages/overview.tsx';
import { Performance } from './pages/performance.tsx';
import { RolloutPage } from './pages/rollout.tsx';
import { Rollouts } from './pages/rollouts.tsx';
import { linkTo, useRoute, type Route } from './route.ts';
import type { Session } from './session.ts';
import { Shortcuts } from './shortcuts.tsx';
import { ThemeSwitch } from './theme.tsx';
import { Trouble, Waiting } from './ui/parts.tsx';
import { Surround, type Surroundings } from './use-answer.ts';

/** Pages in the order of the menu, with the key that leads there. */
const pages = [
  ['', 'Overview', 'o'],
  ['rollouts', 'Rollouts', 'r'],
  ['performance', 'Performance', 'p'],
  ['drift', 'Drift', 'd'],
  ['alerts', 'Alerts', 'a'],
  ['audit', 'Audit', 'l'],
  ['health', 'Telemetry', 't'],
] as const;

/** The dashboard: a menu and a page, or the login. */
export function App({ session }: { readonly session: Session }): JSX.Element {
  const [key, setKey] = useState(session.key());
  const signOut = (): void => {
    session.leave();
    setKey(undefined);
  };
  if (key === undefined) {
    return (
      <Login
        onKey={(entered) => {
          session.enter(entered);
          setKey(session.key());
        }}
      />
    );
  }
  return <Shell key={key} apiKey={key} signOut={signOut} />;
}

/** Finds out whose key it is; until then nothing is shown that it may not see. */
function useMe(
  apiKey: string,
  signOut: () => void,
): { readonly present?: Surroundings; readonly error?: ApiError } {
  const api = useMemo(() => createApi(apiKey), [apiKey]);
  const [me, setMe] = useState<Principal>();
  const [error, setError] = useState<ApiError>();
  useEffect(() => {
    let timer: number | undefined;
    const ask = async (): Promise<void> => {
      try {
        setMe(await api.get<Principal>('/me'));
        setError(undefined);
      } catch (failure) {
        if (!(failure instanceof ApiError)) throw failure;
        if (failure.status === 401) signOut();
        else {
          setError(failure);
          timer = window.setTimeout(() => void ask(), 5000);
        }
      }
    };
    void ask();
    return () => {
      window.clearTimeout(timer);
    };
  }, [api]);
  const present = useMemo((): Surroundings | undefined => {
    if (me === undefined) return undefined;
    const [model] = me.scope.models ?? [];
    const [channel] = me.scope.channels ?? [];
    const limits = { ...(model !== undefined && { model }), ...(channel !== undefined && { channel }) };
    return { api, me, mayChange: me.role === 'admin' || me.role === 'publisher', limits, signOut };
  }, [me]);
  return { ...(present && { present }), ...(error && { error }) };
}

function Shell(props: { readonly apiKey: string; readonly signOut: () => void }): JSX.Element {
  const route = useRoute();
  const main = useRef<HTMLElement>(null);
  const { present, error } = useMe(props.apiKey, props.signOut);
  const title = pages.find(([page]) => page === route.page)?.[1] ?? 'Overview';
  useEffect(() => {
    document.title = [...route.rest.slice(-1), title, 'Inlay'].join(' · ');
    // On a phone the menu is longer than the screen is wide.
    document.querySelector('[aria-current="page"]')?.scrollIntoView({ block: 'nearest', inline: 'center' });
  }, [title, route.rest.join('/')]);
  return (
    <>
      <a
        class="skip"
        href="#main"
        onClick={(event) => {
          // The fragment of the address is the page.
          event.preventDefault();
          main.current?.focus();
        }}
      >
        Skip to content
      </a>
      <div class="shell">
        <nav aria-label="Pages">
          <a class="brand" href={linkTo()}>
            <svg viewBox="0 0 32 32" width="26" height="26" aria-hidden="true">
              <rect width="32" height="32" rx="8" />
              <path d="M9 9h5v14H9zM17 9h6v6h-6zM17 18h6v5h-6z" />
            </svg>
            Inlay
          </a>
          <ul>
            {pages.map(([page, name]) => (
              <li key={page}>
                <a
                  href={page === '' ? '#/' : linkTo(page)}
                  {...(title === name && { 'aria-current': 'page' as const })}
                >
                  {name}
                </a>
              </li>
            ))}
          </ul>
          <div class="foot">
            {present !== undefined && <Whose surroundings={present} />}
            <ThemeSwitch />
            <button type="button" class="quiet" onClick={props.signOut}>
              Sign out
            </button>
            <a class="quiet wide" href="licences.txt">
              Licences
            </a>
          </div>
        </nav>
        <main id="main" tabIndex={-1} ref={main}>
          {present === undefined ? (
            <>
              <h1>{title}</h1>
              <Trouble error={error} />
              <Waiting />
            </>
          ) : (
            <Surround.Provider value={present}>{pageOf(route)}</Surround.Provider>
          )}
        </main>
      </div>
      <Shortcuts pages={pages} />
    </>
  );
}

function Whose({ surroundings }: { readonly surroundings: Surroundings }): JSX.Element {
  const { me, limits } = surroundings;
  const limit = Object.values(limits).join(', ');
  return (
    <p class="whose wide">
      {me.role} <code>{me.actor}</code>
      {limit !== '' && <small>only {limit}</small>}
    </p>
  );
}

function pageOf({ page, rest }: Route): ComponentChildren {
  const [first, second] = rest;
  if (page === 'rollouts' && first !== undefined && second !== undefined)
    return <RolloutPage key={rest.join('/')} channel={first} model={second} />;
  if (page === 'rollouts') return <Rollouts />;
  if (page === 'performance') return <Performance model={first} />;
  if (page === 'drift') return <Drift model={first} />;
  if (page === 'alerts') return <Alerts />;
  if (page === 'audit') return <Audit />;
  if (page === 'health') return <Health />;
  return <Overview />;
}
