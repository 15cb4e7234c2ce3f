import type { JSX } from 'preact';
import { useEffect, useState } from 'preact/hooks';

type Theme = 'auto' | 'light' | 'dark';

const NAME = 'inlay-theme';
const next: Readonly<Record<Theme, Theme>> = { auto: 'light', light: 'dark', dark: 'auto' };

/** Switches between the theme of the system, a light one and a dark one. */
export function ThemeSwitch(): JSX.Element {
  const [theme, setTheme] = useState<Theme>(() => read(localStorage.getItem(NAME)));
  useEffect(() => {
    document.documentElement.dataset['theme'] = theme;
    localStorage.setItem(NAME, theme);
  }, [theme]);
  return (
    <button
      type="button"
      class="quiet"
      onClick={() => {
        setTheme(next[theme]);
      }}
    >
      Theme: {theme}
    </button>
  );
}

function read(value: string | null): Theme {
  return value === 'light' || value === 'dark' ? value : 'auto';
}
