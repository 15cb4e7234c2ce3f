import type { JSX } from 'preact';
import { useState } from 'preact/hooks';
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
import { Choice, Empty, Panel, Trouble, Waiting } from '../ui/parts.tsx';
import { Tabs } from '../ui/tabs.tsx';
import { useAnswer } from '../use-answer.ts';
import { ModelChoice, NoReports, useModel } from './model-choice.tsx';

/** Spans of time with how they are called, and the seconds between points, of which a few hundred are enough. */
const spans = {
  '3h': ['Last 3 hours', 3 * 3_600_000, 300],
  '12h': ['Last 12 hours', 12 * 3_600_000, 300],
  '24h': ['Last day', 86_400_000, 3600],
  '7d': ['Last week', 7 * 86_400_000, 3600],
  '30d': ['Last 30 days', 30 * 86_400_000, 86_400],
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
  ['cost', 'Cost per call', (value) => String(Number(value.toPrecision(2)))],
];

/** Percentiles of the time of a call, with their bands. */
const percentiles = {
  p50: { title: 'P50', low: 'p50Low', high: 'p50High' },
  p95: { title: 'P95', low: 'p95Low', high: 'p95High' },
  p99: { title: 'P99' },
} as const;

type Percentile = keyof typeof percentiles;

/** How one model runs: times, failures, cold starts, cache, memory. */
export function Performance({ model: asked }: { readonly model: string | undefined }): JSX.Element {
  const { model, fleet } = useModel(asked);
  const [span, setSpan] = useState<Span>('24h');
  const [by, setBy] = useState<'version' | 'arm' | 'cls'>('version');
  const pathOf = (name: string): string | undefined => (model === undefined ? undefined : `/fleet/${name}`);
  const [, spanMs, step] = spans[span];
  const query = { model, step };
  const series = useAnswer<SeriesAnswer>(pathOf('series'), { ...query, by }, spanMs);
  const heat = useAnswer<HeatmapAnswer>(pathOf('heatmap'), query, spanMs);
  const errors = useAnswer<ErrorsAnswer>(pathOf('errors'), query, spanMs);
  const { value } = series;
  const isEmpty = value?.lines.every(({ calls }) => calls.every((one) => one === null)) ?? true;
  const hasNobody = fleet.value?.models.length === 0;
  return (
    <>
      <h1>Performance</h1>
      <div class="row">
        {model !== undefined && <ModelChoice page="performance" model={model} models={fleet.value?.models} />}
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
      {hasNobody && model === undefined && (
        <Panel title="Time from call to answer">
          <NoReports />
        </Panel>
      )}
      {value === undefined && model !== undefined && series.error === undefined && <Waiting />}
      {value !== undefined && isEmpty && (
        <Panel title="Time from call to answer">
          <Empty title="Nothing to show for this time">
            Fewer than 20 devices have reported in each part of it. Choose a longer time, or all classes.
          </Empty>
        </Panel>
      )}
      {value !== undefined && !isEmpty && (
        <>
          <Times answer={value} titleOf={titleBy(by, fleet.value)} />
          {heat.value !== undefined && heat.value.edges.length > 0 && (
            <Panel
              title="Where the times lie"
              hint="Calls of all versions; the stronger the colour, the more."
            >
              <HeatMap answer={heat.value} />
            </Panel>
          )}
          <div class="columns">
            {charts.map(([name, title, write]) => {
              const lines = value.lines.map((line) => ({
                title: titleBy(by, fleet.value)(line.key),
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

/** What the lines of a chart are called. */
function titleBy(by: 'version' | 'arm' | 'cls', fleet: FleetAnswer | undefined): (key: string) => string {
  if (by === 'arm') return (key) => ({ '': 'base', t: 'candidate', c: 'control' })[key] ?? key;
  if (by === 'cls') return (key) => fleet?.classes.find(({ cls }) => String(cls) === key)?.title ?? key;
  return (key) => key;
}

function Times(props: {
  readonly answer: SeriesAnswer;
  readonly titleOf: (key: string) => string;
}): JSX.Element {
  const [percentile, setPercentile] = useState<Percentile>('p95');
  const { answer, titleOf } = props;
  const bands = percentiles[percentile];
  return (
    <Panel
      title="Time from call to answer"
      hint="Bands hold for all times at once, and count devices rather than calls."
      actions={
        <Tabs
          label="Percentile"
          value={percentile}
          options={Object.entries(percentiles).map(
            ([name, { title }]) => [name as Percentile, title] as const,
          )}
          onChoose={setPercentile}
        />
      }
    >
      <LineChart
        title={`${bands.title} of the time from call to answer`}
        times={answer.times}
        lines={answer.lines.map((line) => ({
          title: titleOf(line.key),
          values: line[percentile],
          ...('low' in bands && { low: line[bands.low], high: line[bands.high] }),
        }))}
        format={format.seconds}
        height={260}
        sync="performance"
      />
    </Panel>
  );
}

function ErrorTable({ answer }: { readonly answer: ErrorsAnswer | undefined }): JSX.Element {
  return (
    <Panel title="Failed calls by code">
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
