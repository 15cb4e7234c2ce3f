import type { JSX } from 'preact';
import type { GuardEvidence, RolloutEvidence } from '../../server/api/answers.ts';
import { LineChart } from '../charts/line-chart.tsx';
import * as format from '../format.ts';
import { linkTo } from '../route.ts';
import { useAnswer } from '../use-answer.ts';
import { Badge, Empty, Panel, Stat, Trouble, Waiting, type Tone } from '../ui/parts.tsx';
import { Actions } from './rollout-actions.tsx';

/** Where a rollout stands, as a tone. */
const tones: Readonly<Record<string, Tone>> = {
  ramp: 'info',
  paused: 'warn',
  halted: 'bad',
  rolledback: 'bad',
  complete: 'good',
};

const guardTones: Readonly<Record<GuardEvidence['verdict'], Tone>> = {
  open: 'neutral',
  fail: 'bad',
  pass: 'good',
  hold: 'warn',
};

function StateBadge({ state }: { readonly state: string }): JSX.Element {
  return <Badge tone={tones[state] ?? 'neutral'}>{state === 'rolledback' ? 'rolled back' : state}</Badge>;
}

/** One line about a rollout. */
export function RolloutLine({ rollout }: { readonly rollout: RolloutEvidence }): JSX.Element {
  const { plan, channel, programme, stage, reason, devices } = rollout;
  const stages = programme?.stages.length;
  return (
    <li>
      <a href={linkTo('rollouts', channel, plan.model)}>
        <strong>{plan.model}</strong> {plan.cand.version}
        <small>{channel}</small>
      </a>
      <StateBadge state={plan.state} />
      <progress value={plan.bp} max={10_000} aria-label="Share of devices" />
      <span class="number">{format.basisPoints(plan.bp)}</span>
      <span class="reason">
        {stages !== undefined && `Stage ${stage + 1} of ${stages}. `}
        {devices.exposed > 0 && `${format.count(devices.exposed)} devices have it. `}
        {reason}
      </span>
    </li>
  );
}

/** All rollouts. */
export function Rollouts(): JSX.Element {
  const { value, error } = useAnswer<{ readonly rollouts: readonly RolloutEvidence[] }>('/rollouts');
  return (
    <>
      <h1>Rollouts</h1>
      <Trouble error={error} />
      <Panel title="By channel and model" wide>
        {value === undefined ? (
          <Waiting />
        ) : value.rollouts.length === 0 ? (
          <Empty
            title="Nothing is rolled out yet"
            command="npx inlay rollout plan digits --stages 1,10,50,100"
          >
            See first what each stage can find out, and with how many devices.
          </Empty>
        ) : (
          <ul class="rollouts">
            {value.rollouts.map((rollout) => (
              <RolloutLine key={rollout.plan.id} rollout={rollout} />
            ))}
          </ul>
        )}
      </Panel>
    </>
  );
}

/** One rollout, with its evidence. */
export function RolloutPage(props: { readonly channel: string; readonly model: string }): JSX.Element {
  const { channel, model } = props;
  const path = `/rollouts/${encodeURIComponent(channel)}/${encodeURIComponent(model)}/evidence`;
  const { value, error, again } = useAnswer<RolloutEvidence>(path);
  if (value === undefined) {
    return (
      <>
        <h1>{model}</h1>
        {error === undefined ? <Waiting /> : <Trouble error={error} />}
      </>
    );
  }
  const { plan, devices, guards, reason, programme, stage, status, stageAt, shadow, arms } = value;
  const treated = guards[0]?.treated.judged;
  const left = guards.flatMap(({ devicesLeft }) => (devicesLeft === null ? [] : [devicesLeft]));
  return (
    <>
      <h1>
        {model} {plan.cand.version} <StateBadge state={plan.state} />
      </h1>
      <Trouble error={error} />
      <p class="lead">{reason}</p>
      <Actions rollout={value} onDone={again} />
      <dl class="stats">
        <Stat
          name="Share"
          value={format.basisPoints(plan.bp)}
          note={programme ? `stage ${stage + 1} of ${programme.stages.length}` : 'set by hand'}
        />
        <Stat
          name="Devices that have it"
          value={format.count(devices.exposed)}
          note={`${format.count(devices.control)} in control`}
        />
        <Stat
          name="Silent"
          value={format.count(devices.silent)}
          tone={devices.silent > 0 ? 'warn' : 'neutral'}
          note="activated, and not heard of since"
        />
        <Stat name="Judged" value={format.count(treated)} note="each one once per stage" />
        <Stat
          name="Devices left to a verdict"
          value={left.length > 0 ? format.count(Math.max(...left)) : '–'}
          note={status === 'running' ? 'at the present rates' : status}
        />
      </dl>
      {programme !== null && (
        <ol class="stages" aria-label="Stages">
          {programme.stages.map(({ bp }, index) => (
            <li
              key={index}
              class={index < stage ? 'past' : index === stage ? 'present' : 'coming'}
              {...(index === stage && { 'aria-current': 'step' as const })}
            >
              <b>{format.basisPoints(bp)}</b>
              <small>
                {index < stage
                  ? 'passed'
                  : index === stage
                    ? `since ${format.ago(stageAt).replace(' ago', '')}`
                    : ''}
              </small>
            </li>
          ))}
        </ol>
      )}
      {guards.length === 0 && (
        <Panel title="Guards" wide>
          <Empty
            title="No guards watch this rollout"
            command={`npx inlay rollout start ${model} ${plan.cand.version} --strategy canary --stages 1,10,50,100`}
          >
            It was set by hand. A programme of stages has guards that halt it by themselves.
          </Empty>
        </Panel>
      )}
      <div class="columns">
        {guards.map((guard) => (
          <GuardPanel key={guard.guard} guard={guard} />
        ))}
      </div>
      {shadow !== null && (
        <Panel title="Shadow" hint="It runs beside the present version and answers nobody.">
          <dl class="stats">
            <Stat name="Runs" value={format.count(shadow.n)} />
            <Stat name="Alike" value={format.percent(shadow.n > 0 ? shadow.alike / shadow.n : null)} />
            <Stat name="Failed" value={format.count(shadow.failed)} />
          </dl>
        </Panel>
      )}
      {arms.length > 0 && (
        <Panel title="Arms" wide>
          <div class="scroll">
            <table>
              <thead>
                <tr>
                  <th>Arm</th>
                  <th>Version</th>
                  <th class="number">Weight</th>
                  <th class="number">Devices</th>
                  <th class="number">Reward</th>
                </tr>
              </thead>
              <tbody>
                {arms.map((arm) => (
                  <tr key={arm.arm}>
                    <td>{arm.arm}</td>
                    <td>{arm.version}</td>
                    <td class="number">{format.basisPoints(arm.weightBp)}</td>
                    <td class="number">{format.count(arm.devices)}</td>
                    <td class="number">{arm.reward === null ? '–' : arm.reward.toPrecision(3)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        </Panel>
      )}
    </>
  );
}

function GuardPanel({ guard }: { readonly guard: GuardEvidence }): JSX.Element {
  const { history, treated, control, failAt, passAt } = guard;
  return (
    <Panel
      title={guard.guard}
      hint={guard.text}
      actions={<Badge tone={guardTones[guard.verdict]}>{guard.verdict}</Badge>}
    >
      {history.length > 1 && (
        <LineChart
          title={`Evidence of the guard ${guard.guard}`}
          times={history.map(({ at }) => at)}
          lines={[
            { title: 'worse', values: history.map(({ fail }) => fail), colour: 1 },
            { title: 'good enough', values: history.map(({ pass }) => pass), colour: 2 },
          ]}
          levels={[
            { at: failAt, title: 'halts', tone: 'bad' },
            { at: passAt, title: 'passes', tone: 'good' },
          ]}
          format={(value) => value.toFixed(1)}
          height={150}
          sync="guards"
        />
      )}
      <table class="facts">
        <tbody>
          <tr>
            <th>Bad devices, candidate</th>
            <td class="number">
              {format.count(treated.bad)} of {format.count(treated.judged)}
            </td>
          </tr>
          <tr>
            <th>Bad devices, control</th>
            <td class="number">
              {format.count(control.bad)} of {format.count(control.judged)}
            </td>
          </tr>
          <tr>
            <th>Ratio</th>
            <td class="number">{guard.ratio === null ? '–' : `${guard.ratio.toFixed(2)} ×`}</td>
          </tr>
          <tr>
            <th>Evidence that it is worse</th>
            <td class="number">
              {format.odds(guard.logEFail)} of {format.odds(failAt)}
            </td>
          </tr>
          <tr>
            <th>Devices left to a verdict</th>
            <td class="number">{guard.devicesLeft === null ? '–' : format.count(guard.devicesLeft)}</td>
          </tr>
        </tbody>
      </table>
    </Panel>
  );
}
