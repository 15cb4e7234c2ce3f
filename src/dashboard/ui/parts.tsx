import type { ComponentChildren, JSX } from 'preact';
import { useState } from 'preact/hooks';
import type { ApiError } from '../api.ts';

/** What something is like: the colour of badges, marks and lines. */
export type Tone = 'neutral' | 'good' | 'warn' | 'bad' | 'info';

/** A part of a page with a title. */
export function Panel(props: {
  readonly title: string;
  readonly hint?: string;
  readonly actions?: ComponentChildren;
  readonly children: ComponentChildren;
}): JSX.Element {
  return (
    <section class="panel">
      <header>
        <h2>{props.title}</h2>
        {props.hint !== undefined && <p class="hint">{props.hint}</p>}
        {props.actions !== undefined && <div class="actions">{props.actions}</div>}
      </header>
      {props.children}
    </section>
  );
}

/** One word about how something is. */
export function Badge(props: { readonly tone: Tone; readonly children: ComponentChildren }): JSX.Element {
  return (
    <span class={`badge ${props.tone}`}>
      <i aria-hidden="true" />
      {props.children}
    </span>
  );
}

/** A figure with its name. */
export function Stat(props: {
  readonly name: string;
  readonly value: ComponentChildren;
  readonly note?: ComponentChildren;
  readonly tone?: Tone;
}): JSX.Element {
  return (
    <div class={`stat ${props.tone ?? 'neutral'}`}>
      <dt>{props.name}</dt>
      <dd>{props.value}</dd>
      {props.note !== undefined && <dd class="note">{props.note}</dd>}
    </div>
  );
}

/** Says what to do next where there is nothing to see. */
export function Empty(props: {
  readonly title?: string;
  readonly children?: ComponentChildren;
  readonly commands?: readonly string[];
}): JSX.Element {
  return (
    <div class="empty">
      {props.title !== undefined && <strong>{props.title}</strong>}
      {props.children !== undefined && <p>{props.children}</p>}
      {props.commands?.map((text) => (
        <Command key={text} text={text} />
      ))}
    </div>
  );
}

/** A command line that can be copied. */
export function Command({ text }: { readonly text: string }): JSX.Element {
  const [isCopied, setCopied] = useState(false);
  const copy = async (): Promise<void> => {
    await navigator.clipboard.writeText(text);
    setCopied(true);
    window.setTimeout(() => {
      setCopied(false);
    }, 1500);
  };
  return (
    <div class="command">
      <code>{text}</code>
      <button
        type="button"
        class="quiet"
        aria-label={`Copy ${text}`}
        onClick={() => void copy().catch(() => undefined)}
      >
        {isCopied ? 'Copied' : 'Copy'}
      </button>
    </div>
  );
}

/** What went wrong, beside what is still shown. */
export function Trouble({ error }: { readonly error: ApiError | undefined }): JSX.Element | null {
  if (error === undefined) return null;
  return (
    <p class="trouble" role="alert">
      {error.message}
    </p>
  );
}

/** Stands where an answer will be. */
export function Waiting(): JSX.Element {
  return (
    <div class="waiting" role="status">
      <span class="sr">Loading</span>
      <i />
      <i />
      <i />
    </div>
  );
}

/** Chooses one of few. */
export function Choice<Value extends string>(props: {
  readonly label: string;
  readonly value: Value;
  readonly options: readonly (readonly [Value, string])[];
  readonly onChoose: (value: Value) => void;
}): JSX.Element {
  return (
    <label class="choice">
      <span class="sr">{props.label}</span>
      <select
        value={props.value}
        onChange={(event) => {
          props.onChoose(event.currentTarget.value as Value);
        }}
      >
        {props.options.map(([value, title]) => (
          <option key={value} value={value}>
            {title}
          </option>
        ))}
      </select>
    </label>
  );
}
