import type { JSX } from 'preact';
import type { RolloutEvidence } from '../../server/api/answers.ts';
import { inChannel, inlay } from '../command-line.ts';
import * as format from '../format.ts';
import { Empty, Panel, Stat, Trouble, Waiting } from '../ui/parts.tsx';
import { useAnswer } from '../use-answer.ts';
import { Guards } from './guards.tsx';
import { Actions } from './rollout-actions.tsx';
import { isUnderWay, sentence, StateBadge } from './rollouts.tsx';

/** What was done to a rollout. */
interface History {
  readonly records: readonly {
    readonly seq: number;
    readonly at: string;
    readonly actor: string;
    readonly action: string;
    readonly details: Readonly<Record<string, unknown>>;
  }[];
}

/** One rollout, with its evidence. */
export function RolloutPage(props: { readonly channel: string; readonly model: string }): JSX.Element {
  const { channel, model } = props;
  const path = `/rollouts/${encodeURIComponent(channel)}/${encodeURIComponent(model)}`;
  const { value, error, again } = useAnswer<RolloutEvidence>(`${path}/evidence`);
  const history = useAnswer<History>(path);
  if (value === undefined) {
    return (
      <>
        <h1>{model}</h1>
        {error === undefined ? <Waiting /> : <Trouble error={error} />}
      </>
    );
  }
  const { plan, guards, reason, shadow, arms } = value;
  return (
    <>
      <h1>
        {model} {plan.cand.version} <StateBadge rollout={value} />
      </h1>
      <Trouble error={error ?? history.error} />
      <p class="lead">{sentence(reason)}</p>
      <Actions
        rollout={value}
        onDone={() => {
          again();
          history.again();
        }}
      />
      <Figures rollout={value} />
      <Stages rollout={value} />
      {guards.length === 0 ? (
        <Panel title="Guards">
          <Empty
            title="No guards watch this rollout"
            commands={[
              inlay(
                ...['rollout', 'start', model, plan.cand.version, ...inChannel(channel)],
                ...['--stages', '1,10,50,100'],
              ),
            ]}
          >
            It was set by hand. A programme of stages has guards that halt it by themselves.
          </Empty>
        </Panel>
      ) : (
        <Guards guards={guards} isOpen={isUnderWay(value)} />
      )}
      {shadow !== null && (
        <Panel title="Shadow" hint="It runs beside the present version and answers nobody.">
          <dl class="stats">
            <Stat name="Runs" value={format.count(shadow.n)} />
            <Stat name="Alike" value={format.percent(shadow.n > 0 ? shadow.alike / shadow.n : null)} />
            <Stat name="Failed" value={format.count(shadow.failed)} />
          </dl>
        </Panel>
      )}
      {arms.length > 1 && <Arms arms={arms} />}
      {history.value !== undefined && <Done history={history.value} />}
    </>
  );
}

function Figures({ rollout }: { readonly rollout: RolloutEvidence }): JSX.Element {
  const { plan, devices, guards, programme, stage } = rollout;
  const judged = guards.find(({ guard }) => guard === 'tripwire')?.treated.judged;
  return (
    <dl class="stats">
      <Stat
        name="Share"
        value={format.basisPoints(plan.bp)}
        note={programme ? `stage ${stage + 1} of ${programme.stages.length}` : 'set by hand'}
      />
      <Stat
        name="Exposed devices"
        value={format.count(devices.exposed)}
        note={`${format.count(devices.control)} in control`}
      />
      <Stat name="Judged" value={format.count(judged)} note="each one once per stage" />
      <Stat
        name="Silent"
        value={format.count(devices.silent)}
        tone={devices.silent > 0 ? 'warn' : 'neutral'}
        note="began it, and said no more"
      />
      <Stat name="Devices left to a verdict" {...left(rollout)} />
    </dl>
  );
}

/** How many devices the slowest of the guards that have to pass still needs. */
function left(rollout: RolloutEvidence): { readonly value: string; readonly note: string } {
  const { guards, status } = rollout;
  if (guards.some(({ verdict }) => verdict === 'fail')) return { value: '0', note: 'a guard has decided' };
  if (!isUnderWay(rollout) || guards.length === 0) return { value: '–', note: 'nothing is to be decided' };
  const open = guards.filter((guard) => guard.required && guard.passAt > 0 && guard.verdict === 'open');
  if (open.length === 0) return { value: '0', note: 'every guard has passed' };
  const needs = open.map(({ devicesLeft }) => devicesLeft);
  if (needs.includes(null)) return { value: '–', note: 'too early to say' };
  const most = Math.max(...needs.map((need) => need ?? 0));
  const slowest = open.find(({ devicesLeft }) => devicesLeft === most);
  return {
    value: format.count(most),
    note: status === 'held' ? 'held' : `for ${slowest?.guard ?? ''}, at the present rates`,
  };
}

function Stages({ rollout }: { readonly rollout: RolloutEvidence }): JSX.Element | null {
  const { programme, stage, stageAt, guards, status } = rollout;
  if (programme === null) return null;
  const hasFailed = guards.some(({ verdict }) => verdict === 'fail') || status === 'failed';
  const kindOf = (index: number): string => {
    if (index > stage) return 'coming';
    if (index < stage || status === 'ended') return 'past';
    return hasFailed ? 'failed' : 'present';
  };
  const words: Readonly<Record<string, string>> = { past: 'passed', failed: 'failed', coming: '' };
  return (
    <ol class="stages" aria-label="Stages">
      {programme.stages.map(({ bp }, index) => (
        <li key={index} class={kindOf(index)} {...(index === stage && { 'aria-current': 'step' as const })}>
          <b>{format.basisPoints(bp)}</b>
          <small>{words[kindOf(index)] ?? `for ${format.span(Date.now() - stageAt)}`}</small>
        </li>
      ))}
    </ol>
  );
}

function Arms({ arms }: { readonly arms: RolloutEvidence['arms'] }): JSX.Element {
  return (
    <Panel
      title="Arms"
      hint="The reward is the share of devices that are none the worse, or the business value."
    >
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
                <td>{arm.arm === 't' ? 'candidate' : arm.arm}</td>
                <td>{arm.version}</td>
                <td class="number">{format.basisPoints(arm.weightBp)}</td>
                <td class="number">{format.count(arm.devices)}</td>
                <td class="number">{arm.reward === null ? '–' : arm.reward.toPrecision(3)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {arms.map(({ arm, comparison }) => comparison && <p key={arm}>{comparison.text}</p>)}
    </Panel>
  );
}

function Done({ history }: { readonly history: History }): JSX.Element | null {
  if (history.records.length === 0) return null;
  return (
    <Panel title="What was done">
      <ol class="timeline">
        {history.records.slice(0, 50).map(({ seq, at, actor, action, details }) => (
          <li
            key={seq}
            class={action === 'rollback' || action === 'halt' ? 'bad' : action === 'hold' ? 'warn' : ''}
          >
            <time>{format.time(Date.parse(at))}</time>
            <span>
              <b>{action}</b> by {actor}: {textOf(details, 'version')}
              {typeof details['percent'] === 'number' && ` at ${details['percent']} %`}
              {textOf(details, 'reason') !== '' && <small> {sentence(textOf(details, 'reason'))}</small>}
            </span>
          </li>
        ))}
      </ol>
    </Panel>
  );
}

function textOf(details: Readonly<Record<string, unknown>>, name: string): string {
  const value = details[name];
  return typeof value === 'string' ? value : '';
}
