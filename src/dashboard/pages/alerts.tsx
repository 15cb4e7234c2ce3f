import type { JSX } from 'preact';
import { useState } from 'preact/hooks';
import type { AlertsAnswer } from '../../server/api/answers.ts';
import { inlay } from '../command-line.ts';
import * as format from '../format.ts';
import { ActionDialog, type Deed } from '../ui/action-dialog.tsx';
import { Badge, Choice, Empty, Panel, Trouble, Waiting, type Tone } from '../ui/parts.tsx';
import { useAnswer, useSurroundings } from '../use-answer.ts';
import { Silences, type SilencesAnswer } from './silences.tsx';

type Alert = AlertsAnswer['alerts'][number];

/** How long an alert is silenced, with its hours. */
const lengths = { '1h': 1, '4h': 4, '1d': 24, '7d': 168 } as const;

type Length = keyof typeof lengths;

/** How grave a level is. */
export function levelTone(level: string): Tone {
  if (level === 'emergency' || level === 'critical') return 'bad';
  return level === 'warning' ? 'warn' : 'neutral';
}

/** What fires, what has fired, and what was done about it. */
export function Alerts(): JSX.Element {
  const { value, error, again } = useAnswer<AlertsAnswer>('/alerts');
  const silences = useAnswer<SilencesAnswer>('/alerts/silences');
  const { api } = useSurroundings();
  const [doing, setDoing] = useState<{ readonly what: 'ack' | 'silence'; readonly alert: Alert }>();
  const [length, setLength] = useState<Length>('4h');
  const present = value?.alerts.filter(({ state }) => state !== 'resolved' && state !== 'inactive') ?? [];
  const deedOf = ({ what, alert }: NonNullable<typeof doing>): Deed => {
    if (what === 'ack') {
      return {
        title: `Take it: ${alert.rule}`,
        label: 'Take it',
        effect: `${alert.text} Nobody is told again, and nothing escalates, until it gets worse.`,
        command: () => inlay('alerts', 'ack', alert.fingerprint.slice(0, 12)),
        act: () => api.send('POST', `/alerts/${alert.fingerprint}/ack`, {}),
      };
    }
    const matchers = { rule: alert.rule, ...alert.labels };
    const pairs = Object.entries(matchers).map(([name, label]) => `${name}=${label}`);
    return {
      title: `Silence: ${alert.rule}`,
      label: 'Silence',
      effect: `Alerts with ${pairs.join(', ')} notify nobody for that time. They still show here.`,
      asks: { label: 'Why?', isNeeded: false },
      command: (comment) =>
        inlay(
          ...['alerts', 'silence', ...pairs, '--for', length],
          ...(comment === '' ? [] : ['--comment', comment]),
        ),
      act: (comment) =>
        api.send('POST', '/alerts/silences', {
          matchers,
          untilAt: Date.now() + lengths[length] * 3_600_000,
          comment,
        }),
    };
  };
  return (
    <>
      <h1>Alerts</h1>
      <Trouble error={error ?? silences.error} />
      {(value !== undefined || error === undefined) && (
        <>
          <Panel title="Now">
            {value === undefined ? (
              <Waiting />
            ) : present.length === 0 ? (
              <Empty title="Nothing fires" commands={[inlay('alerts', 'rules')]}>
                Rules are looked at every 30 seconds. See which there are, and play a changed one on the last
                two weeks with `inlay alerts test`.
              </Empty>
            ) : (
              <ul class="list">
                {present.map((alert) => (
                  <AlertLine
                    key={alert.fingerprint}
                    alert={alert}
                    onDo={(what) => {
                      setDoing({ what, alert });
                    }}
                  />
                ))}
              </ul>
            )}
          </Panel>
          <Silences answer={silences.value} onDone={silences.again} />
          <Panel title="Timeline">
            {value === undefined ? <Waiting /> : <Timeline events={value.events} />}
          </Panel>
        </>
      )}
      <ActionDialog
        deed={doing && deedOf(doing)}
        onClose={(isDone) => {
          setDoing(undefined);
          if (!isDone) return;
          again();
          silences.again();
        }}
      >
        {doing?.what === 'silence' && (
          <Choice
            label="For how long"
            value={length}
            options={[
              ['1h', 'for an hour'],
              ['4h', 'for 4 hours'],
              ['1d', 'for a day'],
              ['7d', 'for a week'],
            ]}
            onChoose={setLength}
          />
        )}
      </ActionDialog>
    </>
  );
}

function AlertLine(props: {
  readonly alert: Alert;
  readonly onDo: (what: 'ack' | 'silence') => void;
}): JSX.Element {
  const { alert, onDo } = props;
  const { mayChange } = useSurroundings();
  return (
    <li>
      <Badge tone={levelTone(alert.level)}>{alert.level}</Badge>
      <span>
        {alert.text}
        <small class="under">
          {[alert.rule, ...Object.entries(alert.labels).map(([name, label]) => `${name}=${label}`)].join(
            '  ',
          )}
        </small>
      </span>
      {/* A rule may be written by somebody else than who reads it. */}
      {alert.runbook !== null && /^https?:/.test(alert.runbook) && (
        <a href={alert.runbook} rel="noreferrer noopener" target="_blank">
          Runbook
        </a>
      )}
      <time>{format.ago(alert.startedAt)}</time>
      {alert.state === 'acked' && <small>taken by {alert.ackedBy ?? 'somebody'}</small>}
      {alert.state === 'pending' && <small>pending</small>}
      {mayChange && alert.state === 'firing' && (
        <button
          type="button"
          onClick={() => {
            onDo('ack');
          }}
        >
          Take it
        </button>
      )}
      {mayChange && (
        <button
          type="button"
          class="quiet"
          onClick={() => {
            onDo('silence');
          }}
        >
          Silence
        </button>
      )}
    </li>
  );
}

function Timeline({ events }: { readonly events: AlertsAnswer['events'] }): JSX.Element {
  if (events.length === 0) return <Empty title="Nothing has happened" />;
  return (
    <ol class="timeline">
      {events.map((event, index) => (
        <li key={`${event.at} ${index}`} class={event.kind === 'resolved' ? 'good' : levelTone(event.level)}>
          <time>{format.time(event.at)}</time>
          <span>
            <b>{event.kind}</b> {event.text} <small>{event.rule}</small>
          </span>
        </li>
      ))}
    </ol>
  );
}
