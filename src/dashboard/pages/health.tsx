import type { JSX } from 'preact';
import type { TelemetryHealthAnswer } from '../../server/api/answers.ts';
import { Sparkline } from '../charts/bars.tsx';
import { LineChart } from '../charts/line-chart.tsx';
import * as format from '../format.ts';
import { Panel, Stat, Trouble, Waiting } from '../ui/parts.tsx';
import { useAnswer } from '../use-answer.ts';
import { NoReports } from './model-choice.tsx';

/** What the counts of telemetry itself mean. */
const meanings: Readonly<Record<string, readonly [title: string, meaning: string]>> = {
  reports: ['Reports', 'taken in'],
  windows: ['Windows', 'counted; a report has up to twelve'],
  duplicates: ['Duplicates', 'sent again, and counted once'],
  lost: ['Lost', 'holes in what devices numbered'],
  dropped: ['Dropped', 'given up by devices, for want of room or time'],
  too_old: ['Too old', 'windows of a time that is closed'],
  future: ['In the future', 'windows that have not been yet'],
  skewed: ['Skewed', 'from devices with a wrong clock; their times are mended'],
  crossed: ['Crossed', 'for another place than the device was in'],
  unknown: ['Unknown', 'of a model, version or rollout that there is not'],
  refused: ['Refused', 'malformed'],
  busy: ['Busy', 'told to come later'],
};

/** Names that say nothing bad. */
const harmless: readonly string[] = ['reports', 'windows', 'duplicates'];

/** Whether the figures of the other pages can be believed. */
export function Health(): JSX.Element {
  const { value, error } = useAnswer<TelemetryHealthAnswer>('/telemetry/health');
  const hasAny = value !== undefined && Object.values(value.counts).some((hours) => sum(hours) > 0);
  const lossRate = value?.lossRate ?? 0;
  return (
    <>
      <h1>Telemetry</h1>
      <Trouble error={error} />
      {value === undefined && error === undefined && <Waiting />}
      {value !== undefined && !hasAny && (
        <Panel title="Reports">
          <NoReports />
        </Panel>
      )}
      {value !== undefined && hasAny && (
        <>
          <dl class="stats">
            <Stat name="Reports" value={format.count(sum(value.counts['reports'] ?? []))} note="last day" />
            <Stat
              name="Lost"
              value={format.percent(value.lossRate)}
              tone={lossRate > 0.1 ? 'bad' : lossRate > 0.02 ? 'warn' : 'neutral'}
              note={lossRate > 0.02 ? 'more than 2 %: look at the network' : 'of what devices sealed'}
            />
            {Object.entries(value.consent).map(([name, reports]) => (
              <Stat
                key={name}
                name={`Consent: ${name}`}
                value={format.count(reports)}
                note={name === 'full' ? 'reports with counts of inputs' : 'reports of versions and failures'}
              />
            ))}
          </dl>
          <Panel title="Reports by hour">
            <LineChart
              title="Reports and windows by hour"
              times={value.hours}
              lines={['reports', 'windows'].map((name) => ({
                title: name,
                values: value.counts[name] ?? [],
              }))}
              format={format.compact}
              height={180}
            />
          </Panel>
          <Panel title="What became of them" hint="Of the last 24 hours.">
            <div class="scroll">
              <table>
                <thead>
                  <tr>
                    <th>What</th>
                    <th class="wide">Meaning</th>
                    <th class="number">Last day</th>
                    <th class="number">Last hour</th>
                    <th>By hour</th>
                  </tr>
                </thead>
                <tbody>
                  {Object.entries(value.counts).map(([name, hours]) => (
                    <tr key={name} class={sum(hours) === 0 ? 'none' : harmless.includes(name) ? '' : 'some'}>
                      <td>{meanings[name]?.[0] ?? name}</td>
                      <td class="wide hint">{meanings[name]?.[1]}</td>
                      <td class="number">{format.count(sum(hours))}</td>
                      <td class="number">{format.count(hours.at(-1))}</td>
                      <td>
                        {sum(hours) > 0 && (
                          <Sparkline title={`${meanings[name]?.[0] ?? name} by hour`} values={hours} />
                        )}
                      </td>
                    </tr>
                  ))}
                </tbody>
              </table>
            </div>
          </Panel>
        </>
      )}
    </>
  );
}

function sum(values: readonly number[]): number {
  return values.reduce((all, one) => all + one, 0);
}
