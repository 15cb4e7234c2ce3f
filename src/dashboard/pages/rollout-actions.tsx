import type { JSX } from 'preact';
import { useRef, useState } from 'preact/hooks';
import type { RolloutEvidence } from '../../server/api/answers.ts';
import { useSurroundings } from '../use-answer.ts';
import { Command } from '../ui/parts.tsx';

interface Action {
  readonly name: 'pause' | 'resume' | 'promote' | 'halt' | 'rollback';
  readonly title: string;
  /** What happens, for the person who is about to do it. */
  readonly effect: string;
  readonly from: readonly string[];
  readonly isGrave: boolean;
}

const actions: readonly Action[] = [
  {
    name: 'pause',
    title: 'Pause',
    effect: 'No further device begins. Those that have it keep it.',
    from: ['ramp'],
    isGrave: false,
  },
  {
    name: 'resume',
    title: 'Resume',
    effect: 'It goes on where it was.',
    from: ['paused', 'halted'],
    isGrave: false,
  },
  {
    name: 'promote',
    title: 'Promote now',
    effect: 'Every device gets it, whatever the guards have found so far.',
    from: ['ramp', 'paused'],
    isGrave: true,
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
}): JSX.Element {
  const { channel, plan } = props.rollout;
  const { api } = useSurroundings();
  const dialog = useRef<HTMLDialogElement>(null);
  const [action, setAction] = useState<Action>();
  const [reason, setReason] = useState('');
  const [problem, setProblem] = useState<string>();
  const possible = actions.filter(({ from }) => from.includes(plan.state));
  const open = (next: Action): void => {
    setAction(next);
    setReason('');
    setProblem(undefined);
    dialog.current?.showModal();
  };
  const act = async (event: Event): Promise<void> => {
    event.preventDefault();
    if (action === undefined) return;
    try {
      const path = `/rollouts/${encodeURIComponent(channel)}/${encodeURIComponent(plan.model)}/${action.name}`;
      await api.send('POST', path, reason.trim() === '' ? {} : { reason: reason.trim() });
      dialog.current?.close();
      props.onDone();
    } catch (error) {
      setProblem((error as Error).message);
    }
  };
  const quoted = reason.trim() === '' ? '' : ` --reason ${JSON.stringify(reason.trim())}`;
  const where = channel === 'stable' ? '' : ` --channel ${channel}`;
  return (
    <div class="row">
      {possible.map((one) => (
        <button
          key={one.name}
          type="button"
          class={one.isGrave ? 'grave' : 'secondary'}
          onClick={() => {
            open(one);
          }}
        >
          {one.title}
        </button>
      ))}
      <dialog ref={dialog} aria-labelledby="action">
        <form onSubmit={(event) => void act(event)}>
          <h2 id="action">
            {action?.title} {plan.model} {plan.cand.version}
          </h2>
          <p>{action?.effect}</p>
          <label for="reason">Why? It goes into the audit log.</label>
          <input
            id="reason"
            value={reason}
            maxLength={500}
            required={action?.name === 'promote'}
            onInput={(event) => {
              setReason(event.currentTarget.value);
            }}
          />
          <Command text={`npx inlay rollout ${action?.name ?? ''} ${plan.model}${where}${quoted}`} />
          {problem !== undefined && (
            <p class="trouble" role="alert">
              {problem}
            </p>
          )}
          <div class="row end">
            <button
              type="button"
              onClick={() => {
                dialog.current?.close();
              }}
            >
              Cancel
            </button>
            <button type="submit" class={action?.isGrave === true ? 'grave solid' : 'primary'}>
              {action?.title}
            </button>
          </div>
        </form>
      </dialog>
    </div>
  );
}
