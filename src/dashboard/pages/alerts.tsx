import type { JSX } from 'preact';
import { useState } from 'preact/hooks';
import type { AlertsAnswer } from '../../server/api/answers.ts';
import * as format from '../format.ts';
import { useAnswer, useSurroundings } from '../use-answer.ts';
import { Badge, Empty, Panel, Trouble, Waiting, type Tone } from '../ui/parts.tsx';

/** How grave a level is. */
export function levelTone(level: string): Tone {
  if (level === 'emergency' || level === 'critical') return 'bad';
  return level === 'warning' ? 'warn' : 'neutral';
}

/** What fires, what has fired, and what was done about it. */
export function Alerts(): JSX.Element {
  const { value, error, again } = useAnswer<AlertsAnswer>('/alerts');
  const { api } = useSurroundings();
  const [problem, setProblem] = useState<string>();
  const acknowledge = async (fingerprint: string): Promise<void> => {
    try {
      await api.send('POST', `/alerts/${encodeURIComponent(fingerprint)}/ack`, {});
      setProblem(undefined);
      again();
    } catch (failure) {
      setProblem((failure as Error).message);
    }
  };
  const present = value?.alerts.filter(({ state }) => state !== 'resolved' && state !== 'inactive') ?? [];
  return (
    <>
      <h1>Alerts</h1>
      <Trouble error={error} />
      {problem !== undefined && (
        <p class="trouble" role="alert">
          {problem}
        </p>
      )}
      <Panel title="Now" wide>
        {value === undefined ? (
          <Waiting />
        ) : present.length === 0 ? (
          <Empty title="Nothing fires" command="npx inlay alerts test error-rate">
            See how often a rule would have fired in the last two weeks.
          </Empty>
        ) : (
          <ul class="list">
            {present.map((alert) => (
              <li key={alert.fingerprint}>
                <Badge tone={levelTone(alert.level)}>{alert.level}</Badge>
                <span>
                  {alert.text}
                  <small>
                    {' '}
                    {alert.rule}
                    {Object.entries(alert.labels).map(([name, label]) => ` ${name}=${label}`)}
                  </small>
                </span>
                {alert.runbook !== null && /^https?:/.test(alert.runbook) && (
                  <a href={alert.runbook} rel="noreferrer noopener" target="_blank">
                    Runbook
                  </a>
                )}
                <time>{format.ago(alert.startedAt)}</time>
                {alert.state === 'acked' ? (
                  <small>taken by {alert.ackedBy ?? 'somebody'}</small>
                ) : alert.state === 'firing' ? (
                  <button type="button" class="secondary" onClick={() => void acknowledge(alert.fingerprint)}>
                    Acknowledge
                  </button>
                ) : (
                  <small>{alert.state}</small>
                )}
              </li>
            ))}
          </ul>
        )}
      </Panel>
      <Panel title="Timeline" wide>
        {value === undefined ? (
          <Waiting />
        ) : value.events.length === 0 ? (
          <Empty title="Nothing has happened" />
        ) : (
          <ol class="timeline">
            {value.events.map((event, index) => (
              <li key={`${event.at} ${index}`} class={levelTone(event.level)}>
                <time>{format.time(event.at)}</time>
                <span>
                  <b>{event.kind}</b> {event.text} <small>{event.rule}</small>
                </span>
              </li>
            ))}
          </ol>
        )}
      </Panel>
    </>
  );
}
