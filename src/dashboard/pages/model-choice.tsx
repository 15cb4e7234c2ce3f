import type { JSX } from 'preact';
import type { FleetAnswer } from '../../server/api/answers.ts';
import { linkTo } from '../route.ts';
import { Choice, Empty } from '../ui/parts.tsx';
import { useAnswer, useSurroundings, type Answered } from '../use-answer.ts';

/** The model that a page is about: the one of the address, or the first that there is. */
export function useModel(asked: string | undefined): {
  readonly model: string | undefined;
  readonly fleet: Answered<FleetAnswer>;
} {
  const { limits } = useSurroundings();
  const fleet = useAnswer<FleetAnswer>('/fleet', limits.model === undefined ? {} : { model: limits.model });
  return { model: asked ?? limits.model ?? fleet.value?.models[0], fleet };
}

/** Chooses the model of a page. */
export function ModelChoice(props: {
  readonly page: string;
  readonly model: string;
  readonly models: readonly string[] | undefined;
}): JSX.Element {
  const { page, model, models = [] } = props;
  const names = models.includes(model) ? models : [model, ...models];
  return (
    <Choice
      label="Model"
      value={model}
      options={names.map((name) => [name, name] as const)}
      onChoose={(name) => {
        location.hash = linkTo(page, name);
      }}
    />
  );
}

/** Says how reports come to be. */
export function NoReports(): JSX.Element {
  return (
    <Empty
      title="No device has reported yet"
      commands={["createInlay({ sync: { … }, telemetry: { consent: 'full' } })"]}
    >
      An app reports when its code says that the person has agreed. Devices send counts, never inputs or
      answers; cells of fewer than 20 devices stay hidden.
    </Empty>
  );
}
