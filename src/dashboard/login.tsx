import type { JSX } from 'preact';
import { useState } from 'preact/hooks';
import { ApiError, createApi } from './api.ts';
import { inlay } from './command-line.ts';
import { Command } from './ui/parts.tsx';

/** Asks for an API key, and takes one that the server knows. */
export function Login({ onKey }: { readonly onKey: (key: string) => void }): JSX.Element {
  const [key, setKey] = useState('');
  const [problem, setProblem] = useState<string>();
  const [isAsking, setAsking] = useState(false);
  const enter = async (event: Event): Promise<void> => {
    event.preventDefault();
    setAsking(true);
    try {
      await createApi(key.trim()).get('/me');
      onKey(key.trim());
    } catch (error) {
      const isUnknown = error instanceof ApiError && error.status === 401;
      setProblem(isUnknown ? 'The server does not know this key.' : (error as Error).message);
      setAsking(false);
    }
  };
  return (
    <main class="login" id="main">
      <form onSubmit={(event) => void enter(event)}>
        <h1>Inlay</h1>
        <p>Sign in with an API key. It stays in this tab, and is gone when you close it.</p>
        <label for="key">API key</label>
        <input
          id="key"
          type="password"
          autocomplete="off"
          spellcheck={false}
          placeholder="inlay_…"
          value={key}
          autofocus
          aria-describedby="problem"
          onInput={(event) => {
            setKey(event.currentTarget.value);
            setProblem(undefined);
          }}
        />
        <p id="problem" class="trouble" role="alert" hidden={problem === undefined}>
          {problem}
        </p>
        <button type="submit" class="primary" disabled={key.trim() === '' || isAsking}>
          Sign in
        </button>
        <p class="hint">A key that may look and change nothing:</p>
        <Command text={inlay('tokens', 'create', '--name', 'dashboard', '--role', 'viewer')} />
      </form>
    </main>
  );
}
