import type { ComponentChildren, JSX } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import { Command } from './parts.tsx';

/** Something that a person is about to do. */
export interface Deed {
  readonly title: string;
  /** What the button says that does it. */
  readonly label: string;
  /** What happens, for the person who is about to do it. */
  readonly effect: string;
  readonly isGrave?: boolean;
  /** What the text is asked for, and whether it has to be there. */
  readonly asks?: { readonly label: string; readonly isNeeded: boolean };
  /** The command line that does the same. */
  readonly command: (text: string) => string;
  readonly act: (text: string) => Promise<unknown>;
}

/** Asks once more, with the reason, and shows the command line that does the same. It is open while there is a deed. */
export function ActionDialog(props: {
  readonly deed: Deed | undefined;
  /** Further fields. */
  readonly children?: ComponentChildren;
  readonly onClose: (isDone: boolean) => void;
}): JSX.Element {
  const { deed, onClose } = props;
  const dialog = useRef<HTMLDialogElement>(null);
  const [text, setText] = useState('');
  const [problem, setProblem] = useState<string>();
  const [isActing, setActing] = useState(false);
  const isOpen = deed !== undefined;
  useEffect(() => {
    if (isOpen) {
      setText('');
      setProblem(undefined);
      dialog.current?.showModal();
    } else dialog.current?.close();
  }, [isOpen]);
  const act = async (event: Event): Promise<void> => {
    event.preventDefault();
    if (deed === undefined) return;
    setActing(true);
    try {
      await deed.act(text.trim());
      onClose(true);
    } catch (error) {
      setProblem((error as Error).message);
    }
    setActing(false);
  };
  return (
    <dialog
      ref={dialog}
      aria-labelledby="deed"
      onClose={() => {
        if (isOpen) onClose(false);
      }}
    >
      {deed !== undefined && (
        <form onSubmit={(event) => void act(event)}>
          <h2 id="deed">{deed.title}</h2>
          <p>{deed.effect}</p>
          {props.children}
          {deed.asks !== undefined && (
            <>
              <label for="deed-text">{deed.asks.label}</label>
              <input
                id="deed-text"
                value={text}
                maxLength={500}
                required={deed.asks.isNeeded}
                onInput={(event) => {
                  setText(event.currentTarget.value);
                }}
              />
            </>
          )}
          <p class="hint">The same on the command line:</p>
          <Command text={deed.command(text.trim())} />
          {problem !== undefined && (
            <p class="trouble" role="alert">
              {problem}
            </p>
          )}
          <div class="row end">
            <button
              type="button"
              onClick={() => {
                onClose(false);
              }}
            >
              Cancel
            </button>
            <button
              type="submit"
              class={deed.isGrave === true ? 'grave solid' : 'primary'}
              disabled={isActing}
            >
              {deed.label}
            </button>
          </div>
        </form>
      )}
    </dialog>
  );
}
