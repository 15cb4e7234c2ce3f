import type { JSX } from 'preact';
import type { TelemetryHealthAnswer } from '../../server/api/answers.ts';
import { LineChart } from '../charts/line-chart.tsx';
import * as format from '../format.ts';
import { useAnswer } from '../use-answer.ts';
import { Empty, Panel, Stat, Trouble, Waiting } from '../ui/parts.tsx';

/** What the counts of telemetry itself mean. */
const meanings: Readonly<Record<string, string>> = {
  reports: 'Reports taken in',
  windows: 'Windows counted',
  duplicates: 'Sent again, counted once',
  too_old: 'Too old to count',
  refused: 'Malformed or unknown',
  lost: 'Never arrived',
  skewed: 'With a wrong clock',
  dropped: 'Given up by devices',
  busy: 'Told to come later',
};

/** Whether the figures of the other pages can be believed. */
export function Health(): JSX.Element {
  const { value, error } = useAnswer<TelemetryHealthAnswer>('/telemetry/health');
  const hasAny = value !== undefined && Object.values(value.counts).some((hours) => hours.some((n) => n > 0));
  return (
    <>
      <h1>Telemetry</h1>
      <Trouble error={error} />
      {value === undefined && error === undefined && <Waiting />}
      {value !== undefined && !hasAny && (
        <Empty
          title="No report has arrived"
          command="createInlay({ sync, telemetry: { consent: 'necessary' } })"
        >
          Devices send counts, never inputs or answers, and only after consent.
        </Empty>
      )}
      {value !== undefined && hasAny && (
        <>
          <dl class="stats">
            <Stat
              name="Lost, last day"
              value={format.percent(value.lossRate)}
              tone={(value.lossRate ?? 0) > 0.1 ? 'bad' : (value.lossRate ?? 0) > 0.02 ? 'warn' : 'good'}
              note="holes in what devices numbered"
            />
            {Object.entries(value.consent).map(([name, devices]) => (
              <Stat key={name} name={`Consent: ${name}`} value={format.count(devices)} note="devices" />
            ))}
          </dl>
          <div class="columns">
            {Object.entries(value.counts).map(([name, hours]) => (
              <Panel key={name} title={meanings[name] ?? name} hint={`${format.count(sum(hours))} in all`}>
                <LineChart
                  title={meanings[name] ?? name}
                  times={value.hours}
                  lines={[{ title: 'per hour', values: hours }]}
                  format={format.compact}
                  height={130}
                  sync="health"
                />
              </Panel>
            ))}
          </div>
        </>
      )}
    </>
  );
}

function sum(values: readonly number[]): number {
  return values.reduce((all, one) => all + one, 0);
}
