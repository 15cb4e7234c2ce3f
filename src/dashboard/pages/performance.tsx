import type { JSX } from 'preact';
import { useMemo, useState } from 'preact/hooks';
import type {
  ErrorsAnswer,
  FleetAnswer,
  HeatmapAnswer,
  SeriesAnswer,
  SeriesLine,
} from '../../server/api/answers.ts';
import { HeatMap } from '../charts/heat-map.tsx';
import { LineChart } from '../charts/line-chart.tsx';
import * as format from '../format.ts';
import { linkTo } from '../route.ts';
import { useAnswer } from '../use-answer.ts';
import { Choice, Empty, Panel, Trouble, Waiting } from '../ui/parts.tsx';

const spans = {
  '3h': ['Last 3 hours', 3 * 3_600_000],
  '24h': ['Last day', 86_400_000],
  '7d': ['Last week', 7 * 86_400_000],
  '30d': ['Last 30 days', 30 * 86_400_000],
} as const;

type Span = keyof typeof spans;

/** Figures of a line that are charted, with how they are written. */
const charts: readonly (readonly [keyof SeriesLine, string, (value: number) => string])[] = [
  ['errorRate', 'Failed calls', (value) => format.percent(value)],
  ['calls', 'Calls', format.compact],
  ['devices', 'Devices', format.compact],
  ['loadP95', 'Opening the model, P95', format.seconds],
  ['coldStarts', 'Cold starts', format.compact],
  ['cacheHitRate', 'Answers from the cache', (value) => format.percent(value)],
  ['memory', 'Memory', format.bytes],
  ['cost', 'Cost per call', (value) => value.toPrecision(2)],
];

/** How one model runs: times, failures, cold starts, cache, memory. */
export function Performance({ model: asked }: { readonly model: string | undefined }): JSX.Element {
  const fleet = useAnswer<FleetAnswer>('/fleet');
  const model = asked ?? fleet.value?.models[0];
  const [span, setSpan] = useState<Span>('24h');
  const [by, setBy] = useState<'version' | 'arm' | 'cls'>('version');
  // Whole minutes, so that the same is asked for more than once.
  const to = Math.ceil(Date.now() / 60_000) * 60_000;
  const range = useMemo(() => ({ from: to - spans[span][1], to }), [span, to]);
  const query = { model, ...range, by };
  const path = model === undefined ? undefined : '/fleet/series';
  const series = useAnswer<SeriesAnswer>(path, query);
  const heat = useAnswer<HeatmapAnswer>(model === undefined ? undefined : '/fleet/heatmap', {
    model,
    ...range,
  });
  const errors = useAnswer<ErrorsAnswer>(model === undefined ? undefined : '/fleet/errors', {
    model,
    ...range,
  });
  const { value } = series;
  const isEmpty = value?.lines.every(({ calls }) => calls.every((one) => one === null)) ?? true;
  return (
    <>
      <h1>Performance</h1>
      <div class="row">
        {model !== undefined && (
          <Choice
            label="Model"
            value={model}
            options={(fleet.value?.models ?? [model]).map((name) => [name, name] as const)}
            onChoose={(name) => {
              location.hash = linkTo('performance', name);
            }}
          />
        )}
        <Choice
          label="Time"
          value={span}
          options={Object.entries(spans).map(([name, [title]]) => [name as Span, title] as const)}
          onChoose={setSpan}
        />
        <Choice
          label="Lines"
          value={by}
          options={[
            ['version', 'by version'],
            ['arm', 'by arm'],
            ['cls', 'by class of device'],
          ]}
          onChoose={setBy}
        />
      </div>
      <Trouble error={fleet.error ?? series.error ?? heat.error ?? errors.error} />
      {fleet.value?.models.length === 0 && (
        <Empty
          title="No device has reported yet"
          command="createInlay({ sync, telemetry: { consent: 'full' } })"
        >
          Charts appear with the first reports of twenty devices.
        </Empty>
      )}
      {value === undefined && model !== undefined && series.error === undefined && <Waiting />}
      {value !== undefined && isEmpty && fleet.value?.models.length !== 0 && (
        <Empty title="Nothing to show for this time">
          Fewer than twenty devices have reported in each part of it. Choose a longer time.
        </Empty>
      )}
      {value !== undefined && !isEmpty && (
        <>
          <Panel title="Time from call to answer" hint="Bands hold for all times at once." wide>
            <LineChart
              title="Percentiles of the time from call to answer"
              times={value.times}
              lines={value.lines.flatMap((line, index) => [
                {
                  title: `${line.key} P50`,
                  values: line.p50,
                  low: line.p50Low,
                  high: line.p50High,
                  colour: index,
                },
                {
                  title: `${line.key} P95`,
                  values: line.p95,
                  low: line.p95Low,
                  high: line.p95High,
                  colour: index,
                  dashed: true,
                },
                { title: `${line.key} P99`, values: line.p99, colour: index, dashed: true },
              ])}
              format={format.seconds}
              height={260}
              sync="performance"
            />
          </Panel>
          {heat.value !== undefined && heat.value.edges.length > 0 && (
            <Panel title="Where the times lie" wide>
              <HeatMap answer={heat.value} />
            </Panel>
          )}
          <div class="columns">
            {charts.map(([name, title, write]) => {
              const lines = value.lines.map((line) => ({
                title: line.key,
                values: line[name] as readonly (number | null)[],
              }));
              if (lines.every(({ values }) => values.every((one) => one === null))) return null;
              return (
                <Panel key={name} title={title}>
                  <LineChart
                    title={title}
                    times={value.times}
                    lines={lines}
                    format={write}
                    height={160}
                    sync="performance"
                  />
                </Panel>
              );
            })}
          </div>
          <ErrorTable answer={errors.value} />
        </>
      )}
    </>
  );
}

function ErrorTable({ answer }: { readonly answer: ErrorsAnswer | undefined }): JSX.Element {
  return (
    <Panel title="Failed calls by code" wide>
      {answer === undefined ? (
        <Waiting />
      ) : answer.rows.length === 0 ? (
        <Empty title="No call has failed" />
      ) : (
        <div class="scroll">
          <table>
            <thead>
              <tr>
                <th>Version</th>
                <th>Code</th>
                <th class="number">Calls</th>
                <th class="number">Share of its calls</th>
              </tr>
            </thead>
            <tbody>
              {answer.rows.map(({ version, code, calls, share }) => (
                <tr key={`${version} ${code}`}>
                  <td>{version}</td>
                  <td>
                    <code>{code}</code>
                  </td>
                  <td class="number">{format.count(calls)}</td>
                  <td class="number">{format.percent(share)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </Panel>
  );
}
