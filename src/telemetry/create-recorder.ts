/** Counts what happens to one model into the windows that are open. */

import { isInlayError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import { createPredictions } from './feedback.ts';
import type { Profile } from './profile.ts';
import { createCounter, type Counter } from './profile-counter.ts';
import type { Feedback, Recorder, RecordingContext } from './recorder.ts';
import { EVENT_NAME, type Consent } from './report.ts';
import type { OpenWindow, WindowKey } from './window.ts';
import type { Windows } from './windows.ts';

/** What {@link createRecorder} works with. */
export interface RecorderParts {
  /** Name of the model. */
  readonly model: string;
  readonly windows: Windows;
  readonly platform: Pick<Platform, 'monotonicMs' | 'random'>;
  consent(): Consent;
  /** Share of calls whose features are counted, in (0, 1]. Default 1. */
  sample?(): number;
  /** ε of the randomised response on inputs. Default: none, counts are exact. */
  epsilon?(): number | undefined;
}

/** What counts go to: windows of one key, one after the other. */
interface Place {
  readonly context: RecordingContext;
  readonly key: WindowKey;
  readonly counter: Counter | undefined;
  window: OpenWindow;
}

/** Creates the recorder of a model. Several may share windows. Before something is entered, calls without a context are lost. */
export function createRecorder(parts: RecorderParts): Recorder {
  const { model, windows, platform } = parts;
  const places = new WeakMap<RecordingContext, Place>();
  const counters = new WeakMap<Profile, Counter>();
  const predictions = createPredictions<Place>(platform.monotonicMs);
  let entered: Place | undefined;

  const counterOf = (profile: Profile | undefined): Counter | undefined => {
    if (profile === undefined) return undefined;
    const counter = counters.get(profile) ?? createCounter(profile);
    counters.set(profile, counter);
    return counter;
  };
  const placeOf = (context: RecordingContext): Place => {
    let place = places.get(context);
    if (place === undefined) {
      const key = keyOf(model, context);
      const window = windows.open(key, context.baseline);
      place = { context, key, counter: counterOf(context.profile), window };
      places.set(context, place);
    }
    return place;
  };
  const windowOf = (place: Place): OpenWindow => {
    if (place.window.isClosed) place.window = windows.open(place.key, place.context.baseline);
    return place.window;
  };
  const at = (context: RecordingContext | undefined, count: (window: OpenWindow) => void): void => {
    const place = context === undefined ? entered : placeOf(context);
    if (place !== undefined) count(windowOf(place));
  };
  const countEvent = (place: Place, name: string, value: number): void => {
    if (EVENT_NAME.test(name) && !(name in Object.prototype) && Math.abs(value) <= MOST_VALUE)
      windowOf(place).event(name, value);
  };

  return {
    enter: (context) => {
      entered = placeOf(context);
    },
    answered: (ms, call) => {
      const place = call.context === undefined ? entered : placeOf(call.context);
      if (place === undefined) return;
      const window = windowOf(place);
      const { tally } = window;
      tally.ok += 1;
      tally.ex += call.runs ?? 0;
      window.time('lat', ms);
      if (call.queueMs !== undefined) window.time('queue', call.queueMs);
      if (call.cache !== undefined) tally[call.cache] += 1;
      if (parts.consent() !== 'full') return;
      const { costMicros = 0 } = call;
      if (costMicros > 0 && costMicros <= MOST_VALUE) tally.cost += costMicros;
      const { counter } = place;
      if (call.id !== undefined) predictions.remember(call.id, place, counter?.predictionOf(call.outputs));
      if (counter === undefined) return;
      const share = parts.sample?.() ?? 1;
      if (share < 1 && platform.random() >= share) return;
      const epsilon = parts.epsilon?.();
      const noise = epsilon === undefined ? undefined : { epsilon, random: platform.random };
      window.features(counter.open).count(call.feeds, call.outputs, noise);
    },
    failed: (error, _ms, context) => {
      const code = codeOf(error);
      if (code === undefined) return;
      at(context, (window) => {
        window.failed(code);
      });
    },
    opened: (ms, context) => {
      at(context, (window) => {
        window.tally.cold += 1;
        window.time('load', ms);
      });
    },
    activated: (context) => {
      at(context, ({ tally }) => (tally.act += 1));
    },
    crashed: (context) => {
      at(context, ({ tally }) => (tally.fatal += 1));
    },
    committed: (context) => {
      at(context, ({ tally }) => (tally.com += 1));
    },
    rejected: (reason, context) => {
      at(context, (window) => {
        window.rejected(asCode(reason));
      });
    },
    fellBack: (reason, context) => {
      at(context, (window) => {
        window.fellBack(asCode(reason));
      });
    },
    received: (bytes, context) => {
      at(context, ({ tally }) => (tally.net += bytes));
    },
    memory: (bytes) => {
      at(undefined, (window) => {
        window.memory(bytes);
      });
    },
    processor: (ms) => {
      at(undefined, ({ tally }) => (tally.cpu += ms));
    },
    shadow: (outcome, ms, context) => {
      at(context, (window) => {
        window.shadow(outcome);
        if (outcome !== 'failed') window.time('shadow', ms);
      });
    },
    feedback: (id, feedback) => {
      if (parts.consent() !== 'full') {
        // What was agreed to before holds no longer.
        predictions.clear();
        return false;
      }
      const found = predictions.find(id);
      if (found === undefined) return false;
      const { place, prediction, isLabelled } = found;
      const judged = isLabelled ? undefined : judge(feedback, place.counter, prediction);
      if (judged !== undefined) {
        found.isLabelled = true;
        windowOf(place).labelled(judged.isRight, judged.classes, prediction?.confidence);
      }
      for (const [name, value] of Object.entries(feedback.events ?? {})) countEvent(place, name, value);
      return true;
    },
    event: (name, value) => {
      if (entered !== undefined && parts.consent() === 'full') countEvent(entered, name, value);
    },
  };
}

/** Largest value of a business event that counts, of either sign, and largest cost of a call, in millionths. */
const MOST_VALUE = 1e9;

function keyOf(model: string, context: RecordingContext): WindowKey {
  const { version, rollout, stage = 0, arm, profileHash } = context;
  return {
    m: model,
    ver: version,
    ...(rollout !== undefined && { ro: rollout, st: stage, ...(arm !== undefined && { arm }) }),
    ...(profileHash !== undefined && { prof: profileHash }),
  };
}

/** What a label says about a prediction; `undefined` where that cannot be told. */
function judge(
  { label, correct }: Feedback,
  counter: Counter | undefined,
  prediction: ReturnType<Counter['predictionOf']>,
): { readonly isRight: boolean; readonly classes?: readonly [number, number] } | undefined {
  const actual = label === undefined ? undefined : counter?.slotOfLabel(label);
  if (actual !== undefined && prediction !== undefined)
    return { isRight: String(label) === String(prediction.value), classes: [actual, prediction.slot] };
  return correct === undefined ? undefined : { isRight: correct };
}

/** The code of a failure; `undefined` for a call that its caller gave up, which says nothing about the model. */
function codeOf(error: unknown): string | undefined {
  if (isInlayError(error)) return asCode(error.code.slice('ERR_INLAY_'.length));
  const name = error instanceof Error ? error.name : undefined;
  if (name === 'AbortError') return undefined;
  return name === 'TimeoutError' ? 'timeout' : 'unknown';
}

/** Any text as a code of reports, within their alphabet and length. */
function asCode(text: string): string {
  const code = text
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '_')
    .replace(/^_+/, '')
    .slice(0, 40);
  return code === '' ? 'unknown' : code;
}
