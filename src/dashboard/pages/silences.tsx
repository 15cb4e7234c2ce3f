import type { JSX } from 'preact';
import { useState } from 'preact/hooks';
import * as format from '../format.ts';
import { Panel } from '../ui/parts.tsx';
import { useSurroundings } from '../use-answer.ts';

/** Silences, those that have ended included. */
export interface SilencesAnswer {
  readonly silences: readonly {
    readonly id: string;
    readonly matchers: Readonly<Record<string, string>>;
    readonly fromAt: number;
    readonly untilAt: number;
    readonly actor: string;
    readonly comment: string;
  }[];
}

/** Silences in force, and how to end them. */
export function Silences(props: {
  readonly answer: SilencesAnswer | undefined;
  readonly onDone: () => void;
}): JSX.Element | null {
  const { api, mayChange } = useSurroundings();
  const [problem, setProblem] = useState<string>();
  const inForce = props.answer?.silences.filter(({ untilAt }) => untilAt > Date.now()) ?? [];
  if (inForce.length === 0) return null;
  const end = async (id: string): Promise<void> => {
    try {
      await api.send('DELETE', `/alerts/silences/${encodeURIComponent(id)}`);
      setProblem(undefined);
    } catch (error) {
      setProblem((error as Error).message);
    }
    props.onDone();
  };
  return (
    <Panel title="Silences" hint="Alerts with these labels notify nobody.">
      {problem !== undefined && (
        <p class="trouble" role="alert">
          {problem}
        </p>
      )}
      <ul class="list">
        {inForce.map(({ id, matchers, untilAt, actor, comment }) => (
          <li key={id}>
            <span>
              {Object.entries(matchers)
                .map(([name, label]) => `${name}=${label}`)
                .join('  ')}
              <small class="under">
                by {actor}
                {comment !== '' && `: ${comment}`}
              </small>
            </span>
            <time>until {format.time(untilAt)}</time>
            {mayChange && (
              <button type="button" onClick={() => void end(id)}>
                End
              </button>
            )}
          </li>
        ))}
      </ul>
    </Panel>
  );
}
