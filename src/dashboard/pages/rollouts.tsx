import type { JSX } from 'preact';
import type { RolloutEvidence } from '../../server/api/answers.ts';
import { inlay } from '../command-line.ts';
import * as format from '../format.ts';
import { linkTo } from '../route.ts';
import { Badge, Empty, Panel, Trouble, Waiting, type Tone } from '../ui/parts.tsx';
import { useAnswer, useSurroundings } from '../use-answer.ts';

/** All rollouts. */
export interface RolloutsAnswer {
  readonly rollouts: readonly RolloutEvidence[];
}

/** Where a rollout stands, as a tone and a word. */
const states: Readonly<Record<string, readonly [Tone, string]>> = {
  ramp: ['info', 'under way'],
  paused: ['warn', 'paused'],
  halted: ['bad', 'halted'],
  rolledback: ['bad', 'rolled back'],
  complete: ['good', 'complete'],
};

/** Where a rollout stands. */
export function StateBadge({ rollout }: { readonly rollout: RolloutEvidence }): JSX.Element {
  const { plan, status } = rollout;
  if (plan.state === 'ramp' && status === 'held') return <Badge tone="warn">needs you</Badge>;
  const [tone, title] = states[plan.state] ?? ['neutral', plan.state];
  return <Badge tone={tone}>{title}</Badge>;
}

/** Whether a rollout may still reach further devices. */
export function isUnderWay({ plan }: RolloutEvidence): boolean {
  return plan.state === 'ramp' || plan.state === 'paused';
}

/** Rollouts by channel and model. */
export function RolloutList({ answer }: { readonly answer: RolloutsAnswer | undefined }): JSX.Element {
  if (answer === undefined) return <Waiting />;
  if (answer.rollouts.length === 0) {
    return (
      <Empty
        title="Nothing is rolled out yet"
        commands={[
          inlay('publish', 'model.onnx', '--name', 'digits', '--version', '1.0.0'),
          inlay('rollout', 'set', 'digits', '1.0.0', '--percent', '100'),
        ]}
      >
        Publish a first release and give it to every device. From the second on, `inlay rollout start` takes a
        release from stage to stage, each judged by the guards.
      </Empty>
    );
  }
  return (
    <ul class="rollouts">
      {answer.rollouts.map((rollout) => (
        <RolloutLine key={`${rollout.channel} ${rollout.plan.id}`} rollout={rollout} />
      ))}
    </ul>
  );
}

function RolloutLine({ rollout }: { readonly rollout: RolloutEvidence }): JSX.Element {
  const { plan, channel, programme, stage, reason, devices } = rollout;
  return (
    <li>
      <a href={linkTo('rollouts', channel, plan.model)}>
        <strong>{plan.model}</strong> {plan.cand.version}
        <small>{channel}</small>
      </a>
      <StateBadge rollout={rollout} />
      <progress value={plan.bp} max={10_000} aria-label="Share of devices" />
      <span class="number">{format.basisPoints(plan.bp)}</span>
      <span class="reason">
        {programme !== null && `Stage ${stage + 1} of ${programme.stages.length}. `}
        {devices.exposed > 0 &&
          `${format.count(devices.exposed)} devices ${plan.state === 'rolledback' ? 'had' : 'have'} it. `}
        {sentence(reason)}
      </span>
    </li>
  );
}

/** A text with a capital letter. */
export function sentence(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** All rollouts. */
export function Rollouts(): JSX.Element {
  const { limits } = useSurroundings();
  const { value, error } = useAnswer<RolloutsAnswer>('/rollouts', limits);
  return (
    <>
      <h1>Rollouts</h1>
      <Trouble error={error} />
      {(value !== undefined || error === undefined) && (
        <Panel title="By channel and model" hint="Judged device by device, each against what it did before.">
          <RolloutList answer={value} />
        </Panel>
      )}
      {value !== undefined && value.rollouts.length > 0 && (
        <Panel title="Before you start one" hint="What each stage can find out, and with how many devices:">
          <div class="left">
            <CommandFor model={value.rollouts[0]?.plan.model ?? ''} />
          </div>
        </Panel>
      )}
    </>
  );
}

function CommandFor({ model }: { readonly model: string }): JSX.Element {
  return <Empty commands={[inlay('rollout', 'plan', model, '--stages', '1,10,50,100')]} />;
}
