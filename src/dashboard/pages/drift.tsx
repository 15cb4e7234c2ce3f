import type { JSX } from 'preact';
import { useState } from 'preact/hooks';
import type { DriftAnswer, DriftRow, FleetAnswer } from '../../server/api/answers.ts';
import { Bars, Sparkline } from '../charts/bars.tsx';
import * as format from '../format.ts';
import { linkTo } from '../route.ts';
import { useAnswer } from '../use-answer.ts';
import { Badge, Choice, Empty, Panel, Trouble, Waiting, type Tone } from '../ui/parts.tsx';

const verdicts: Readonly<Record<DriftRow['verdict'], readonly [Tone, string]>> = {
  none: ['good', 'no drift'],
  warning: ['warn', 'drift'],
  critical: ['bad', 'strong drift'],
  'too-few': ['neutral', 'too few'],
};

/** How what a model sees and gives differs from its reference. */
export function Drift({ model: asked }: { readonly model: string | undefined }): JSX.Element {
  const fleet = useAnswer<FleetAnswer>('/fleet');
  const model = asked ?? fleet.value?.models[0];
  const { value, error } = useAnswer<DriftAnswer>(model === undefined ? undefined : '/drift', { model });
  const [against, setAgainst] = useState<DriftRow['against']>('training');
  const [picked, setPicked] = useState<string>();
  const rows = value?.rows.filter((row) => row.against === against) ?? [];
  const chosen = rows.find((row) => keyOf(row) === picked) ?? rows[0];
  return (
    <>
      <h1>Drift</h1>
      <div class="row">
        {model !== undefined && (
          <Choice
            label="Model"
            value={model}
            options={(fleet.value?.models ?? [model]).map((name) => [name, name] as const)}
            onChoose={(name) => {
              location.hash = linkTo('drift', name);
            }}
          />
        )}
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
      {(model === undefined && fleet.value !== undefined) || (value !== undefined && rows.length === 0) ? (
        <Empty
          title="There is nothing to compare yet"
          command="npx inlay publish model.onnx --profile profile.json …"
        >
          A release with a reference profile has its inputs and outputs counted in the same bins on every
          device whose person agreed to it.
        </Empty>
      ) : null}
      {rows.length > 0 && (
        <Panel
          title="Features"
          hint="A verdict takes 200 calls of 30 devices, a small probability and an effect."
          wide
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
        <Panel title={chosen.feature} hint={`Shares of its bins, version ${chosen.version}.`} wide>
          <Bars
            title={`Shares of ${chosen.feature}`}
            bins={chosen.bins}
            reference={chosen.reference}
            current={chosen.current}
          />
        </Panel>
      )}
      {value !== undefined && value.concept.length > 0 && (
        <Panel title="Labels that came later" hint="They stay on the device; only counts leave it." wide>
          <div class="scroll">
            <table>
              <thead>
                <tr>
                  <th>Version</th>
                  <th class="number">Labelled</th>
                  <th class="number">Coverage</th>
                  <th class="number">Accuracy</th>
                  <th class="number">Reference</th>
                  <th class="number">Evidence of a drop</th>
                </tr>
              </thead>
              <tbody>
                {value.concept.map((row) => (
                  <tr key={row.version}>
                    <td>{row.version}</td>
                    <td class="number">{format.count(row.labelled)}</td>
                    <td class="number">{format.percent(row.coverage)}</td>
                    <td class="number">{format.percent(row.accuracy)}</td>
                    <td class="number">{format.percent(row.reference)}</td>
                    <td class="number">{row.logE === null ? '–' : format.odds(row.logE)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
          {value.concept.map((row) => (
            <Calibration key={row.version} version={row.version} bins={row.calibration} />
          ))}
        </Panel>
      )}
    </>
  );
}

/** How often a model is right when it says that it is so sure. */
function Calibration(props: {
  readonly version: string;
  readonly bins: readonly (readonly [number, number, number])[];
}): JSX.Element | null {
  const known = props.bins.flatMap(([n, right, sure]) =>
    n > 0 ? [{ n, right: right / n, sure: sure / n }] : [],
  );
  if (known.length === 0) return null;
  const most = Math.max(...known.map(({ n }) => n));
  return (
    <figure class="chart">
      <svg
        class="calibration"
        viewBox="0 0 220 220"
        role="img"
        aria-label={`Calibration of ${props.version}`}
      >
        <line x1="20" y1="200" x2="200" y2="20" class="level" />
        {known.map(({ n, right, sure }) => (
          <circle key={sure} cx={20 + sure * 180} cy={200 - right * 180} r={2 + 5 * Math.sqrt(n / most)}>
            <title>{`sure ${format.percent(sure)}, right ${format.percent(right)}, ${n} labels`}</title>
          </circle>
        ))}
        <text x="110" y="216" text-anchor="middle">
          how sure it is
        </text>
        <text x="-110" y="12" text-anchor="middle" transform="rotate(-90)">
          how often it is right
        </text>
      </svg>
      <figcaption class="hint">
        Version {props.version}: on the line, it is as sure as it is right.
      </figcaption>
    </figure>
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
