import type { ComponentChildren, JSX } from 'preact';
import { useMemo, useState } from 'preact/hooks';
import { createApi } from './api.ts';
import { Login } from './login.tsx';
import { Alerts } from './pages/alerts.tsx';
import { Audit } from './pages/audit.tsx';
import { Drift } from './pages/drift.tsx';
import { Health } from './pages/health.tsx';
import { Overview } from './pages/overview.tsx';
import { Performance } from './pages/performance.tsx';
import { RolloutPage, Rollouts } from './pages/rollouts.tsx';
import { linkTo, useRoute, type Route } from './route.ts';
import type { Session } from './session.ts';
import { Shortcuts } from './shortcuts.tsx';
import { ThemeSwitch } from './theme.tsx';
import { Surround } from './use-answer.ts';

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
  const route = useRoute();
  const surroundings = useMemo(
    () =>
      key === undefined
        ? undefined
        : {
            api: createApi(key),
            signOut: () => {
              session.leave();
              setKey(undefined);
            },
          },
    [key],
  );
  if (surroundings === undefined) {
    return (
      <Login
        onKey={(entered) => {
          session.enter(entered);
          setKey(session.key());
        }}
      />
    );
  }
  return (
    <Surround.Provider value={surroundings}>
      <a class="skip" href="#main">
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
            {pages.map(([page, title]) => (
              <li key={page}>
                <a
                  href={page === '' ? '#/' : linkTo(page)}
                  {...(route.page === page && { 'aria-current': 'page' as const })}
                >
                  {title}
                </a>
              </li>
            ))}
          </ul>
          <div class="foot">
            <ThemeSwitch />
            <button type="button" class="quiet" onClick={surroundings.signOut}>
              Sign out
            </button>
          </div>
        </nav>
        <main id="main" tabIndex={-1}>
          {pageOf(route)}
        </main>
      </div>
      <Shortcuts pages={pages} />
    </Surround.Provider>
  );
}

function pageOf({ page, rest }: Route): ComponentChildren {
  const [first, second] = rest;
  if (page === 'rollouts' && first !== undefined && second !== undefined)
    return <RolloutPage channel={first} model={second} />;
  if (page === 'rollouts') return <Rollouts />;
  if (page === 'performance') return <Performance model={first} />;
  if (page === 'drift') return <Drift model={first} />;
  if (page === 'alerts') return <Alerts />;
  if (page === 'audit') return <Audit />;
  if (page === 'health') return <Health />;
  return <Overview />;
}
