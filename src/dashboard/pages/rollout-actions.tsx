import type { JSX } from 'preact';
import { useState } from 'preact/hooks';
import type { RolloutEvidence } from '../../server/api/answers.ts';
import { inChannel, inlay } from '../command-line.ts';
import { ActionDialog } from '../ui/action-dialog.tsx';
import { useSurroundings } from '../use-answer.ts';

interface Action {
  readonly name: 'pause' | 'resume' | 'advance' | 'promote' | 'halt' | 'rollback';
  readonly title: string;
  /** What happens, for the person who is about to do it. */
  readonly effect: string;
  readonly from: readonly string[];
  readonly isGrave?: boolean;
  /** Whether it goes round the guards, which needs a reason. */
  readonly needsReason?: boolean;
  /** What the command line wants besides the reason. */
  readonly flags?: readonly string[];
}

const actions: readonly Action[] = [
  {
    name: 'pause',
    title: 'Pause',
    effect: 'No further device begins. Those that have it keep it.',
    from: ['ramp'],
  },
  {
    name: 'resume',
    title: 'Resume',
    effect: 'It goes on where it was.',
    from: ['paused', 'halted'],
  },
  {
    name: 'advance',
    title: 'Next stage',
    effect: 'The next stage begins now, whatever the guards have found so far.',
    from: ['ramp'],
    needsReason: true,
  },
  {
    name: 'promote',
    title: 'Promote',
    effect: 'Every device gets it at once, past every stage and whatever the guards have found so far.',
    from: ['ramp', 'paused'],
    isGrave: true,
    needsReason: true,
    flags: ['--now'],
  },
  {
    name: 'halt',
    title: 'Halt',
    effect: 'No further device begins, and those on trial go back. Those that committed it keep it.',
    from: ['ramp', 'paused'],
    isGrave: true,
  },
  {
    name: 'rollback',
    title: 'Roll back',
    effect: 'Every device goes back to the version before.',
    from: ['ramp', 'paused', 'halted', 'complete'],
    isGrave: true,
  },
];

/** What can be done to a rollout now: each with its reason, and the command line that does the same. */
export function Actions(props: {
  readonly rollout: RolloutEvidence;
  readonly onDone: () => void;
}): JSX.Element | null {
  const { channel, plan, programme, status, stage } = props.rollout;
  const { api, mayChange } = useSurroundings();
  const [action, setAction] = useState<Action>();
  const hasNext =
    programme !== null && (status === 'running' || status === 'held') && stage < programme.stages.length - 1;
  const possible = actions.filter(
    ({ name, from }) => from.includes(plan.state) && (name !== 'advance' || hasNext),
  );
  if (possible.length === 0) return null;
  if (!mayChange) {
    return <p class="hint row">This key may look. To change a rollout takes the role publisher.</p>;
  }
  const path = `/rollouts/${encodeURIComponent(channel)}/${encodeURIComponent(plan.model)}`;
  return (
    <div class="row">
      {possible.map((one) => (
        <button
          key={one.name}
          type="button"
          class={one.isGrave === true ? 'grave' : 'secondary'}
          onClick={() => {
            setAction(one);
          }}
        >
          {one.title}
        </button>
      ))}
      <ActionDialog
        deed={
          action && {
            title: `${action.title}: ${plan.model} ${plan.cand.version}`,
            label: action.title,
            effect: action.effect,
            isGrave: action.isGrave === true,
            asks: {
              label: `Why? It goes into the audit log${action.needsReason === true ? '' : ', if you say so'}.`,
              isNeeded: action.needsReason === true,
            },
            command: (reason) =>
              inlay(
                ...['rollout', action.name, plan.model, ...inChannel(channel), ...(action.flags ?? [])],
                ...(reason === '' ? [] : ['--reason', reason]),
              ),
            act: (reason) => api.send('POST', `${path}/${action.name}`, reason === '' ? {} : { reason }),
          }
        }
        onClose={(isDone) => {
          setAction(undefined);
          if (isDone) props.onDone();
        }}
      />
    </div>
  );
}
