import type { JSX } from 'preact';
import { useState } from 'preact/hooks';
import type { DriftAnswer, DriftRow } from '../../server/api/answers.ts';
import { Bars, Sparkline } from '../charts/bars.tsx';
import { Calibration } from '../charts/calibration.tsx';
import { inlay } from '../command-line.ts';
import * as format from '../format.ts';
import { Badge, Choice, Empty, Panel, Trouble, Waiting, type Tone } from '../ui/parts.tsx';
import { useAnswer, useSurroundings } from '../use-answer.ts';
import { ModelChoice, NoReports, useModel } from './model-choice.tsx';

const verdicts: Readonly<Record<DriftRow['verdict'], readonly [Tone, string]>> = {
  none: ['good', 'no drift'],
  warning: ['warn', 'drift'],
  critical: ['bad', 'strong drift'],
  'too-few': ['neutral', 'too few'],
};

/** What needs somebody comes first. */
const gravity: readonly DriftRow['verdict'][] = ['critical', 'warning', 'none', 'too-few'];

/** How what a model sees and gives differs from its reference. */
export function Drift({ model: asked }: { readonly model: string | undefined }): JSX.Element {
  const { model, fleet } = useModel(asked);
  const { limits } = useSurroundings();
  const path = model === undefined ? undefined : '/drift';
  const { value, error } = useAnswer<DriftAnswer>(path, { ...limits, model });
  const [against, setAgainst] = useState<DriftRow['against']>('training');
  const [picked, setPicked] = useState<string>();
  const rows = (value?.rows ?? [])
    .filter((row) => row.against === against)
    .toSorted((a, b) => gravity.indexOf(a.verdict) - gravity.indexOf(b.verdict));
  const chosen = rows.find((row) => keyOf(row) === picked) ?? rows[0];
  return (
    <>
      <h1>Drift</h1>
      <div class="row">
        {model !== undefined && <ModelChoice page="drift" model={model} models={fleet.value?.models} />}
        <Choice
          label="Reference"
          value={against}
          options={[
            ['training', 'against training'],
            ['rolling', 'against the week before'],
          ]}
          onChoose={setAgainst}
        />
      </div>
      <Trouble error={fleet.error ?? error} />
      {model !== undefined && value === undefined && error === undefined && <Waiting />}
      {model === undefined && fleet.value !== undefined && (
        <Panel title="Features">
          <NoReports />
        </Panel>
      )}
      {value !== undefined && rows.length === 0 && (
        <Panel title="Features">
          <Empty
            title="There is nothing to compare yet"
            commands={[
              inlay(
                ...['publish', 'model.onnx', '--name', model ?? 'digits', '--version', '1.1.0'],
                ...['--profile', 'profile.json'],
              ),
            ]}
          >
            A release with a reference profile has its inputs and outputs counted in the same bins on every
            device whose person agreed to it.
          </Empty>
        </Panel>
      )}
      {rows.length > 0 && (
        <Panel
          title="Features"
          hint="A verdict takes 200 calls of 30 devices, a small probability and an effect."
        >
          <div class="scroll">
            <table class="choosable">
              <thead>
                <tr>
                  <th>Feature</th>
                  <th>Version</th>
                  <th>Verdict</th>
                  <th class="number">PSI</th>
                  <th class="number">χ² p</th>
                  <th class="number">KS</th>
                  <th class="number">JS distance</th>
                  <th class="number">W₁/σ</th>
                  <th class="number">Calls</th>
                  <th class="number">Devices</th>
                  <th>PSI by day</th>
                </tr>
              </thead>
              <tbody>
                {rows.map((row) => (
                  <tr key={keyOf(row)} class={row === chosen ? 'chosen' : ''}>
                    <td>
                      <button
                        type="button"
                        class="link"
                        aria-pressed={row === chosen}
                        onClick={() => {
                          setPicked(keyOf(row));
                        }}
                      >
                        {row.feature}
                      </button>{' '}
                      <small>{row.kind}</small>
                    </td>
                    <td>{row.version}</td>
                    <td>
                      <Badge tone={verdicts[row.verdict][0]}>{verdicts[row.verdict][1]}</Badge>
                    </td>
                    <td class="number">{figure(row.psi)}</td>
                    <td class="number">{probability(row.chi2P)}</td>
                    <td class="number">{figure(row.ks)}</td>
                    <td class="number">{figure(row.js)}</td>
                    <td class="number">{figure(row.w1)}</td>
                    <td class="number">{format.count(row.n)}</td>
                    <td class="number">{format.count(row.devices)}</td>
                    <td>
                      <Sparkline
                        title={`PSI of ${row.feature} by day`}
                        values={row.history}
                        level={row.psiAt}
                      />
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        </Panel>
      )}
      {chosen !== undefined && (
        <Panel title={chosen.feature} hint={`Shares of its bins, version ${chosen.version}.`}>
          <Bars
            title={`Shares of ${chosen.feature}`}
            bins={chosen.bins}
            reference={chosen.reference}
            current={chosen.current}
          />
        </Panel>
      )}
      {value !== undefined && value.concept.length > 0 && (
        <Panel title="Labels that came later" hint="They stay on the device; only counts leave it.">
          {value.concept.map((row) => (
            <Labels key={`${row.model} ${row.version}`} row={row} />
          ))}
        </Panel>
      )}
    </>
  );
}

function Labels({ row }: { readonly row: DriftAnswer['concept'][number] }): JSX.Element {
  const facts: readonly (readonly [string, string])[] = [
    ['Labelled calls', format.count(row.labelled)],
    ['Share of all calls', format.percent(row.coverage)],
    ['Accuracy', format.percent(row.accuracy)],
    ['Accuracy of the reference', format.percent(row.reference)],
    ['Evidence of a drop', row.logE === null ? '–' : `${format.odds(row.logE)} to 1`],
  ];
  return (
    <div class="labels">
      <table class="facts">
        <caption>Version {row.version}</caption>
        <tbody>
          {facts.map(([name, value]) => (
            <tr key={name}>
              <th scope="row">{name}</th>
              <td class="number">{value}</td>
            </tr>
          ))}
        </tbody>
      </table>
      <Calibration version={row.version} bins={row.calibration} />
    </div>
  );
}

function keyOf({ version, kind, feature }: DriftRow): string {
  return [version, kind, feature].join(' ');
}

function figure(value: number | null): string {
  return value === null ? '–' : value.toFixed(3);
}

function probability(value: number | null): string {
  if (value === null) return '–';
  return value < 0.0001 ? '< 0.0001' : value.toFixed(4);
}
