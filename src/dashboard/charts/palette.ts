/** Colours of charts, as the style sheet has them for the present theme. */

/** How many lines have colours of their own: Okabe and Ito's, which people with colour blindness can tell apart. */
export const LINES = 7;

/** @returns the value of a custom property of the page. */
export function colour(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** The colour of the line at a position. */
export function lineColour(index: number): string {
  return colour(`line-${index % LINES}`);
}

/** Calls back when the colours have changed, by the switch of the page or by the system. @returns how to stop that. */
export function onRecolour(callback: () => void): () => void {
  const bySwitch = new MutationObserver(callback);
  bySwitch.observe(document.documentElement, { attributeFilter: ['data-theme'] });
  const bySystem = matchMedia('(prefers-color-scheme: dark)');
  bySystem.addEventListener('change', callback);
  return () => {
    bySwitch.disconnect();
    bySystem.removeEventListener('change', callback);
  };
}
