import type { JSX } from 'preact';
import { useState } from 'preact/hooks';
import type { GuardEvidence } from '../../server/api/answers.ts';
import { EvidenceLines } from '../charts/evidence.tsx';
import { LineChart } from '../charts/line-chart.tsx';
import * as format from '../format.ts';
import { Badge, Panel, type Tone } from '../ui/parts.tsx';

const tones: Readonly<Record<GuardEvidence['verdict'], Tone>> = {
  open: 'neutral',
  fail: 'bad',
  pass: 'good',
  hold: 'warn',
};

/** What each guard asks of a device. */
const meanings: Readonly<Record<GuardEvidence['guard'], string>> = {
  errors: 'Calls fail more often than they did on the device.',
  latency: 'Calls take longer than they did on the device.',
  memory: 'The model takes more memory than the one before did on the device.',
  load: 'The model does not load.',
  quality: 'Answers are distributed unlike those of the control.',
  silence: 'The device began the candidate and was not heard of again.',
  biz: 'The business value falls.',
  rejections: 'The device gave the candidate up by itself.',
  tripwire: 'Gross faults of the first devices, which need no statistics.',
  'sample-ratio': 'As many devices report as were assigned to each arm.',
};

/** Guards of a stage: all at a glance, and one with its evidence over time. */
export function Guards(props: {
  readonly guards: readonly GuardEvidence[];
  /** Whether verdicts are still waited for. */
  readonly isOpen: boolean;
}): JSX.Element {
  const { guards, isOpen } = props;
  const [picked, setPicked] = useState<string>();
  const chosen = guards.find(({ guard }) => guard === picked) ?? deciding(guards);
  return (
    <div class="columns guards">
      <Panel title="Guards" hint="Evidence that it is worse, and that it is good enough, by look.">
        <div class="scroll">
          <table>
            <thead>
              <tr>
                <th>Guard</th>
                <th>Verdict</th>
                <th>Evidence</th>
                <th class="number wide">Bad</th>
                <th class="number wide">In control</th>
                <th class="number wide">Ratio</th>
                <th class="number wide">Left</th>
              </tr>
            </thead>
            <tbody>
              {guards.map((guard) => (
                <tr key={guard.guard} class={guard === chosen ? 'chosen' : ''}>
                  <td>
                    <button
                      type="button"
                      class="link"
                      aria-pressed={guard === chosen}
                      onClick={() => {
                        setPicked(guard.guard);
                      }}
                    >
                      {guard.guard}
                    </button>
                    {guard.required && <small class="under">has to pass</small>}
                  </td>
                  <td>
                    <Badge tone={tones[guard.verdict]}>{guard.verdict}</Badge>
                  </td>
                  <td>
                    <EvidenceLines guard={guard} />
                  </td>
                  <td class="number wide">{shareOf(guard.treated)}</td>
                  <td class="number wide">{shareOf(guard.control)}</td>
                  <td class="number wide">{ratioOf(guard)}</td>
                  <td class="number wide">{isOpen ? leftOf(guard) : '–'}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      </Panel>
      {chosen !== undefined && <Guard guard={chosen} isOpen={isOpen} />}
    </div>
  );
}

/** The guard that has decided, or the one that keeps the others waiting. */
function deciding(guards: readonly GuardEvidence[]): GuardEvidence | undefined {
  const open = guards.filter(({ required, verdict }) => required && verdict === 'open');
  return (
    guards.find(({ verdict }) => verdict === 'fail') ??
    open.toSorted((a, b) => (b.devicesLeft ?? 0) - (a.devicesLeft ?? 0))[0] ??
    guards[0]
  );
}

function Guard(props: { readonly guard: GuardEvidence; readonly isOpen: boolean }): JSX.Element {
  const { guard, isOpen } = props;
  const { history, treated, control, failAt, passAt, logEFail, logEPass } = guard;
  return (
    <Panel
      title={guard.guard}
      hint={meanings[guard.guard]}
      actions={<Badge tone={tones[guard.verdict]}>{guard.verdict}</Badge>}
    >
      {history.length > 0 && (
        <LineChart
          title={`Evidence of the guard ${guard.guard}, as logarithms`}
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
          height={200}
        />
      )}
      <p class="said">{guard.text}</p>
      <table class="facts">
        <tbody>
          <Fact name="Bad devices, candidate" value={shareOf(treated)} />
          <Fact name="Bad devices, control" value={shareOf(control)} />
          <Fact name="Ratio" value={ratioOf(guard)} />
          {failAt > 0 && (
            <Fact
              name="Evidence that it is worse"
              value={`${format.odds(logEFail)} of ${format.odds(failAt)}`}
            />
          )}
          {passAt > 0 && (
            <Fact
              name="Evidence that it is good enough"
              value={`${format.odds(logEPass)} of ${format.odds(passAt)}`}
            />
          )}
          {passAt > 0 && isOpen && <Fact name="Devices left to a verdict" value={leftOf(guard)} />}
        </tbody>
      </table>
    </Panel>
  );
}

function Fact({ name, value }: { readonly name: string; readonly value: string }): JSX.Element {
  return (
    <tr>
      <th scope="row">{name}</th>
      <td class="number">{value}</td>
    </tr>
  );
}

function shareOf({ bad, judged }: GuardEvidence['treated']): string {
  return judged === 0 ? '–' : `${format.count(bad)} of ${format.count(judged)}`;
}

/** Of no bad devices at all, the smoothed ratio says nothing. */
function ratioOf({ ratio, treated, control }: GuardEvidence): string {
  return ratio === null || treated.bad + control.bad === 0 ? '–' : `${ratio.toFixed(2)} ×`;
}

function leftOf({ devicesLeft, verdict }: GuardEvidence): string {
  return devicesLeft === null || verdict === 'fail' ? '–' : format.count(devicesLeft);
}
