import type { JSX } from 'preact';
import type { AlertsAnswer, FleetAnswer, TelemetryHealthAnswer } from '../../server/api/answers.ts';
import * as format from '../format.ts';
import { linkTo } from '../route.ts';
import { Badge, Empty, Panel, Stat, Trouble, Waiting } from '../ui/parts.tsx';
import { useAnswer, useSurroundings } from '../use-answer.ts';
import { levelTone } from './alerts.tsx';
import { NoReports, useModel } from './model-choice.tsx';
import { isUnderWay, RolloutList, type RolloutsAnswer } from './rollouts.tsx';

/** What runs where, and what needs somebody. */
export function Overview(): JSX.Element {
  const { limits } = useSurroundings();
  const { fleet } = useModel(undefined);
  const rollouts = useAnswer<RolloutsAnswer>('/rollouts', limits);
  // Alerts are about all models, so that a key of one does not see them.
  const isLimited = limits.model !== undefined || limits.channel !== undefined;
  const alerts = useAnswer<AlertsAnswer>(isLimited ? undefined : '/alerts');
  const health = useAnswer<TelemetryHealthAnswer>('/telemetry/health');
  const firing = alerts.value?.alerts.filter(({ state }) => state === 'firing') ?? [];
  const acked = alerts.value?.alerts.filter(({ state }) => state === 'acked') ?? [];
  const underWay = rollouts.value?.rollouts.filter(isUnderWay) ?? [];
  const failed = rollouts.value?.rollouts.filter(({ status }) => status === 'failed').length ?? 0;
  const lossRate = health.value?.lossRate;
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
        <Stat
          name="Models"
          value={format.count(fleet.value?.models.length)}
          note={`${versionsOf(fleet.value)} versions in use`}
        />
        <Stat
          name="Rollouts under way"
          value={format.count(rollouts.value && underWay.length)}
          note={failed > 0 ? `${failed} stopped by the guards` : 'none stopped'}
        />
        {!isLimited && (
          <Stat
            name="Alerts"
            value={format.count(alerts.value && firing.length)}
            tone={firing.length === 0 ? 'neutral' : 'bad'}
            note={acked.length > 0 ? `firing, and ${acked.length} taken` : 'firing'}
          />
        )}
        <Stat
          name="Reports lost"
          value={format.percent(lossRate)}
          tone={(lossRate ?? 0) > 0.02 ? 'warn' : 'neutral'}
          note={<a href={linkTo('health')}>last day</a>}
        />
      </dl>
      <Panel title="Rollouts" hint="Judged device by device, each against what it did before.">
        <RolloutList answer={rollouts.value} />
      </Panel>
      <div class="columns">
        <Panel title="Fleet" hint="Devices by what they run.">
          <FleetTable answer={fleet.value} />
        </Panel>
        {!isLimited && (
          <Panel title="Alerts" actions={<a href={linkTo('alerts')}>All alerts</a>}>
            <AlertList alerts={alerts.value && [...firing, ...acked]} />
          </Panel>
        )}
      </div>
    </>
  );
}

function AlertList({ alerts }: { readonly alerts: AlertsAnswer['alerts'] | undefined }): JSX.Element {
  if (alerts === undefined) return <Waiting />;
  if (alerts.length === 0) return <Empty title="Nothing fires">Rules are looked at every 30 seconds.</Empty>;
  return (
    <ul class="list">
      {alerts.slice(0, 8).map((alert) => (
        <li key={alert.fingerprint}>
          <Badge tone={levelTone(alert.level)}>{alert.level}</Badge>
          <span>{alert.text}</span>
          <time>{alert.state === 'acked' ? 'taken' : format.ago(alert.startedAt)}</time>
        </li>
      ))}
    </ul>
  );
}

function FleetTable({ answer }: { readonly answer: FleetAnswer | undefined }): JSX.Element {
  if (answer === undefined) return <Waiting />;
  if (answer.rows.length === 0) return <NoReports />;
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
            <th class="wide">
              <span class="sr">Share</span>
            </th>
            <th class="wide">Last report</th>
          </tr>
        </thead>
        <tbody>
          {answer.rows.map((row, index) => (
            <tr key={[row.model, row.version, row.rollout, row.stage, row.arm].join()}>
              <td class={answer.rows[index - 1]?.model === row.model ? 'again' : ''}>
                <a href={linkTo('performance', row.model)}>{row.model}</a>
              </td>
              <td>{row.version}</td>
              <td>{armTitle(row.arm, row.stage)}</td>
              <td class="number">{format.count(row.devices, answer.kAnonymity)}</td>
              <td class="meter wide">
                <progress value={row.devices ?? 0} max={most} aria-hidden="true" />
              </td>
              <td class="wide">{format.ago(row.lastAt, answer.at)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function versionsOf(answer: FleetAnswer | undefined): number {
  return new Set(answer?.rows.map(({ model, version }) => `${model} ${version}`)).size;
}

/** The arm of a stage in words. */
function armTitle(arm: string, stage: number): string {
  if (arm === '') return 'base';
  const title = { t: 'candidate', c: 'control' }[arm] ?? arm;
  return `${title}, stage ${stage + 1}`;
}
