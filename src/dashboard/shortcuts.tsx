import type { JSX } from 'preact';
import { useEffect, useRef } from 'preact/hooks';

/** Keys that lead to pages, and the list of them on `?`. */
export function Shortcuts(props: {
  readonly pages: readonly (readonly [page: string, title: string, key: string])[];
}): JSX.Element {
  const dialog = useRef<HTMLDialogElement>(null);
  const { pages } = props;
  useEffect(() => {
    let isGoing = false;
    const onKey = (event: KeyboardEvent): void => {
      const { target } = event;
      const isTyping = target instanceof HTMLElement && /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName);
      if (isTyping || event.metaKey || event.ctrlKey || event.altKey) return;
      if (event.key === '?') dialog.current?.showModal();
      const page = isGoing ? pages.find(([, , key]) => key === event.key) : undefined;
      isGoing = event.key === 'g';
      if (page !== undefined) location.hash = `#/${page[0]}`;
    };
    window.addEventListener('keydown', onKey);
    return () => {
      window.removeEventListener('keydown', onKey);
    };
  }, [pages]);
  return (
    <dialog ref={dialog} aria-labelledby="shortcuts">
      <h2 id="shortcuts">Keys</h2>
      <dl class="keys">
        {pages.map(([page, title, key]) => (
          <div key={page}>
            <dt>
              <kbd>g</kbd> <kbd>{key}</kbd>
            </dt>
            <dd>{title}</dd>
          </div>
        ))}
        <div>
          <dt>
            <kbd>?</kbd>
          </dt>
          <dd>These keys</dd>
        </div>
      </dl>
      <form method="dialog">
        <button type="submit">Close</button>
      </form>
    </dialog>
  );
}
