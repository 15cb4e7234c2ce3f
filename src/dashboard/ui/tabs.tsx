import type { JSX } from 'preact';
import { useRef } from 'preact/hooks';

/** Chooses one of few by a row of buttons; the arrow keys go along it (WAI-ARIA, radio group pattern). */
export function Tabs<Value extends string>(props: {
  readonly label: string;
  readonly value: Value;
  readonly options: readonly (readonly [value: Value, title: string])[];
  readonly onChoose: (value: Value) => void;
}): JSX.Element {
  const { options, value, onChoose } = props;
  const row = useRef<HTMLDivElement>(null);
  const go = (event: KeyboardEvent): void => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    const place = options.findIndex(([name]) => name === value);
    const next = (place + step + options.length) % options.length;
    const chosen = options[next];
    if (chosen === undefined) return;
    onChoose(chosen[0]);
    row.current?.querySelectorAll('button')[next]?.focus();
  };
  return (
    <div class="tabs" role="radiogroup" aria-label={props.label} ref={row} onKeyDown={go}>
      {options.map(([name, title]) => (
        <button
          key={name}
          type="button"
          role="radio"
          aria-checked={name === value}
          tabIndex={name === value ? 0 : -1}
          onClick={() => {
            onChoose(name);
          }}
        >
          {title}
        </button>
      ))}
    </div>
  );
}
