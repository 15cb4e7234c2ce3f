import type { JSX } from 'preact';
import type {
  AlertsAnswer,
  FleetAnswer,
  RolloutEvidence,
  TelemetryHealthAnswer,
} from '../../server/api/answers.ts';
import * as format from '../format.ts';
import { linkTo } from '../route.ts';
import { useAnswer } from '../use-answer.ts';
import { Badge, Empty, Panel, Stat, Trouble, Waiting } from '../ui/parts.tsx';
import { levelTone } from './alerts.tsx';
import { RolloutLine } from './rollouts.tsx';

/** What runs where, and what needs somebody. */
export function Overview(): JSX.Element {
  const fleet = useAnswer<FleetAnswer>('/fleet');
  const rollouts = useAnswer<{ readonly rollouts: readonly RolloutEvidence[] }>('/rollouts');
  const alerts = useAnswer<AlertsAnswer>('/alerts');
  const health = useAnswer<TelemetryHealthAnswer>('/telemetry/health');
  const firing = alerts.value?.alerts.filter(({ state }) => state === 'firing' || state === 'acked') ?? [];
  const open = rollouts.value?.rollouts.filter(({ plan }) => plan.state !== 'complete') ?? [];
  return (
    <>
      <h1>Overview</h1>
      <Trouble error={fleet.error ?? rollouts.error ?? alerts.error ?? health.error} />
      <dl class="stats">
        <Stat
          name="Devices"
          value={format.count(fleet.value?.devices, fleet.value?.kAnonymity)}
          note="reported within a day"
        />
        <Stat name="Models" value={format.count(fleet.value?.models.length)} />
        <Stat
          name="Rollouts under way"
          value={format.count(open.length)}
          tone={open.some(({ status }) => status === 'failed') ? 'bad' : 'neutral'}
        />
        <Stat
          name="Alerts"
          value={format.count(firing.length)}
          tone={firing.length === 0 ? 'good' : 'bad'}
          note={firing.length === 0 ? 'nothing fires' : 'firing'}
        />
        <Stat
          name="Reports lost"
          value={format.percent(health.value?.lossRate)}
          tone={(health.value?.lossRate ?? 0) > 0.02 ? 'warn' : 'neutral'}
          note="last day"
        />
      </dl>
      <Panel title="Rollouts" hint="Judged device by device, each against what it did before." wide>
        {rollouts.value === undefined ? (
          <Waiting />
        ) : rollouts.value.rollouts.length === 0 ? (
          <Empty
            title="Nothing is rolled out yet"
            command="npx inlay rollout start digits 1.1.0 --strategy canary"
          >
            Publish a release, then let the guards take it from one stage to the next.
          </Empty>
        ) : (
          <ul class="rollouts">
            {rollouts.value.rollouts.map((rollout) => (
              <RolloutLine key={rollout.plan.id} rollout={rollout} />
            ))}
          </ul>
        )}
      </Panel>
      <div class="columns">
        <Panel title="Fleet" hint="Devices by what they run.">
          <FleetTable answer={fleet.value} />
        </Panel>
        <Panel title="Alerts" actions={<a href={linkTo('alerts')}>All alerts</a>}>
          {firing.length === 0 ? (
            <Empty title="Nothing fires">Rules are looked at every 30 seconds.</Empty>
          ) : (
            <ul class="list">
              {firing.slice(0, 8).map((alert) => (
                <li key={alert.fingerprint}>
                  <Badge tone={levelTone(alert.level)}>{alert.level}</Badge>
                  <span>{alert.text}</span>
                  <time>{format.ago(alert.startedAt)}</time>
                </li>
              ))}
            </ul>
          )}
        </Panel>
      </div>
    </>
  );
}

function FleetTable({ answer }: { readonly answer: FleetAnswer | undefined }): JSX.Element {
  if (answer === undefined) return <Waiting />;
  if (answer.rows.length === 0) {
    return (
      <Empty
        title="No device has reported yet"
        command="createInlay({ sync, telemetry: { consent: 'full' } })"
      >
        Devices report when the app says so and the person agrees.
      </Empty>
    );
  }
  const most = Math.max(...answer.rows.map(({ devices }) => devices ?? 0), 1);
  return (
    <div class="scroll">
      <table>
        <thead>
          <tr>
            <th>Model</th>
            <th>Version</th>
            <th>Arm</th>
            <th class="number">Devices</th>
            <th>
              <span class="sr">Share</span>
            </th>
            <th>Last report</th>
          </tr>
        </thead>
        <tbody>
          {answer.rows.map((row) => (
            <tr key={[row.model, row.version, row.rollout, row.stage, row.arm].join()}>
              <td>
                <a href={linkTo('performance', row.model)}>{row.model}</a>
              </td>
              <td>{row.version}</td>
              <td>{armTitle(row.arm, row.stage)}</td>
              <td class="number">{format.count(row.devices, answer.kAnonymity)}</td>
              <td class="meter">
                <progress value={row.devices ?? 0} max={most} />
              </td>
              <td>{format.ago(row.lastAt, answer.at)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** The arm of a stage in words. */
export function armTitle(arm: string, stage: number): string {
  if (arm === '') return 'base';
  const title = { t: 'candidate', c: 'control' }[arm] ?? arm;
  return `${title}, stage ${stage + 1}`;
}
