/** A simulated device that is measured: the real decisions, trial and telemetry of a device, with made-up calls. */

import { base64Url } from '../../telemetry/base64-url.ts';
import { BackendError } from '../../core/errors.ts';
import type { Platform } from '../../core/platform.ts';
import { Tensor } from '../../core/tensor.ts';
import { openHistory } from '../../telemetry/history.ts';
import { createModelTelemetry, type ReportedModel } from '../../telemetry/model.ts';
import {
  forget,
  handOver,
  seal,
  takeIn,
  type Sealed,
  type SpoolRecord,
} from '../../telemetry/spool-record.ts';
import { joinWindows } from '../../telemetry/window-join.ts';
import { createWindows } from '../../telemetry/windows.ts';
import { CANDIDATE_ARM, entryOf } from '../../update/arms.ts';
import { breaksPromise } from '../../update/decide-place.ts';
import { armLabel, decide, type Decision } from '../../update/decide.ts';
import { createTrialWatch, type TrialWatch } from '../../update/guards.ts';
import { DEFAULT_TRIAL, type Install, type PlanEntry } from '../../update/plan.ts';
import type { ResolvedPlan } from '../../update/resolve.ts';
import { createTeller, type Teller } from '../../update/role.ts';
import type { Slot, SlotsState } from '../../update/slot.ts';
import {
  commitTrial,
  firstAnswer,
  rejectRelease,
  revertTo,
  seePlan,
  stageTrial,
} from '../../update/slots-transitions.ts';
import { createDraws, mixed, type Draws } from './draws.ts';
import type { SimulatedFleet } from './fleet.ts';
import { effectOf, NO_EFFECT, type Effect, type Regression } from './regression.ts';
import { BASE_VERSION, CHANNEL, MODEL } from './sync-server.ts';

/** What a measured device is told, and what becomes of it. */
export interface MeasuredDevice {
  readonly number: number;
  /** Whether it runs the candidate now. */
  runsCandidate(): boolean;
  /** Whether it is measured no more and does nothing: its slots are all that is left to know. */
  isAtRest(): boolean;
  slots(): SlotsState;
  /** Decides by a plan, and does what was decided. @param isNew - whether it has just heard of the plan. */
  follow(plan: ResolvedPlan, isNew: boolean): void;
  /** A release that it fetches is there. @param plan - what it hears when it asks before it begins, unless it is away. */
  fetched(plan: ResolvedPlan | undefined): void;
  /** Looks at the trial that is under way. */
  judge(): void;
  /** Sends what it has counted. */
  report(): void;
  /** The server has these reports. */
  acknowledge(reports: readonly Pick<Sealed, 'epoch' | 'seq'>[]): void;
}

/** What measured devices work with. */
export interface DeviceParts {
  readonly platform: Platform;
  readonly fleet: SimulatedFleet;
  readonly seed: number;
  readonly regression: Regression | undefined;
  /** Asks for a call of a device at a time, milliseconds since 1970. */
  readonly plan: (device: number, what: 'decide' | 'fetched' | 'judge' | 'report', at: number) => void;
  /** Takes sealed reports to the server. */
  readonly send: (device: MeasuredDevice, reports: readonly Sealed[]) => void;
  /** A device has begun with the candidate, or has left it. */
  readonly moved: (device: number, isIn: boolean) => void;
}

/** Version of Inlay, for decisions. */
const SDK = '0.0.0';
/** Median time to fetch a release and to begin with it, milliseconds, and its spread. */
const FETCH = { medianMs: 360_000, sigma: 0.5 };
/** Calls that a device has made before the rollout reaches it, and the memory that the app takes then, bytes. */
const CALLS_BEFORE = 150;
const MEMORY = { median: 1e8, sigma: 0.3, jitter: 0.05 };
/** Spread of the times of calls; one of a hundred takes five times as long. */
const TIMES = { sigma: 0.2, tail: 0.01, longer: 5 };
/** Between two looks at a trial that goes on, milliseconds. */
const JUDGE_MS = 300_000;
/** Most calls of a device in one piece: what is used more looks no different. */
const MOST_CALLS = 400;
/** Sizes of what is drawn, bytes: name of the device and of the reporter. */
const NAMES = { dev: 12, epoch: 8 };

const nothing = {};
const good = { y: new Tensor('float32', [1], Float32Array.of(1)) };
const notNumbers = { y: new Tensor('float32', [1], Float32Array.of(Number.NaN)) };

/** Slots of a device that runs a release and has nothing else. */
export function slotsOf(release: PlanEntry): SlotsState {
  return { committed: slotOf(release), rejected: [], markers: [], strikes: {} };
}

/** The facts that a device decides by. */
export function installOf(fleet: SimulatedFleet, device: number): Install {
  return { id: fleet.idOf(device), runtime: 'simulated', sdk: SDK };
}

/** Creates the full state of a device that is about to be measured, with a past. */
export function createMeasuredDevice(
  parts: DeviceParts,
  number: number,
  initial: SlotsState,
): MeasuredDevice {
  const { platform, fleet, regression } = parts;
  const own = createDraws(mixed(parts.seed, number));
  const luck = own.uniform();
  const memory = MEMORY.median * own.spread(MEMORY.sigma);
  const dev = nameFrom(own, NAMES.dev);
  // Another run of the same device makes other calls.
  const draws = createDraws(mixed(parts.seed + platform.monotonicMs(), number));
  const install = installOf(fleet, number);
  const windows = createWindows(platform);
  const history = openHistory(noStore);
  const errors = fleet.failuresOf(number);
  let spool: SpoolRecord = handOver(undefined, dev, nameFrom(draws, NAMES.epoch));
  let batch = 0;
  let slots = initial;
  let plan: ResolvedPlan | undefined;
  let next: Decision | undefined;
  let watch: TrialWatch | undefined;
  let effect: Effect = NO_EFFECT;
  /** Calls until now were made. */
  let calledAt = platform.now();
  let owed = 0;
  let isFetching = false;
  let isReporting = false;
  let isIn = false;
  let isGone = false;

  const keep = (): void => {
    const cut = windows.cut();
    if (cut.length === 0) return;
    history.note(cut);
    batch += 1;
    spool = takeIn(spool, { number: batch, windows: cut, drop: {} }, joinWindows);
  };
  const telemetry: ReportedModel = createModelTelemetry({
    model: MODEL,
    windows,
    platform,
    history,
    consent: () => 'necessary',
    settle: keep,
    report: async () => {
      send();
    },
    onRules: () => {},
  });
  const { recorder } = telemetry;
  const teller: Teller = createTeller({ ...noProfiles, observer: telemetry.observer });
  const decided = (): Parameters<Teller['runs']>[1] => next && { plan, next, state: slots };

  const send = (): void => {
    keep();
    if (isGone || fleet.isAway(number, platform.now())) return;
    const cls = fleet.classOf(number);
    const head = {
      app: CHANNEL,
      dev: spool.dev,
      sdk: `inlay/${SDK}`,
      rt: 'node',
      cls,
      consent: 'necessary',
    } as const;
    spool = seal(spool, head, platform.now());
    if (spool.sealed.length > 0) parts.send(device, spool.sealed);
  };

  /** Makes calls with what runs now. */
  const call = (count: number): void => {
    const medianMs = 1000 * fleet.secondsOf(number) * effect.slower;
    const failing = errors + effect.failing;
    for (let i = 0; i < count; i += 1) {
      if (draws.uniform() < failing) {
        recorder.failed(failure, medianMs);
        watch?.failed(failure);
        if (watch && hasRejected()) return;
        continue;
      }
      const ms = medianMs * draws.spread(TIMES.sigma) * (draws.uniform() < TIMES.tail ? TIMES.longer : 1);
      recorder.answered(ms, { feeds: nothing, outputs: nothing });
      watch?.answered(ms, effect.isNaN ? notNumbers : good);
      if (watch && effect.isNaN && hasRejected()) return;
    }
  };

  /** Makes the calls of the time since the last time. */
  const catchUp = (): void => {
    const now = platform.now();
    owed += ((now - calledAt) / 3_600_000) * fleet.callsOf(number);
    calledAt = now;
    const count = Math.floor(owed);
    owed -= count;
    call(Math.min(count, MOST_CALLS));
    recorder.memory(memory * effect.larger * draws.spread(MEMORY.jitter));
  };

  const settleEffect = (): void => {
    const { version } = running().release;
    const isCandidate = version !== BASE_VERSION;
    effect = effectOf(regression, isCandidate, luck);
    if (isCandidate !== isIn) parts.moved(number, (isIn = isCandidate));
  };

  const running = (): Slot => {
    const found = slots.trial?.phase === 'active' ? slots.trial : slots.committed;
    if (found) return found;
    throw new Error('A simulated device has nothing to run.');
  };

  const context = (): { readonly now: number; readonly sdk: string } => ({ now: platform.now(), sdk: SDK });

  /** Ends the trial badly, if it has come to that. */
  const hasRejected = (): boolean => {
    const verdict = watch?.verdict(platform.now());
    const { trial } = slots;
    if (!trial || verdict === undefined || typeof verdict === 'string') return false;
    watch = undefined;
    slots = rejectRelease(slots, trial.release, verdict, context()).state;
    settleEffect();
    telemetry.updated({ ...told, type: 'rejected', version: trial.release.version, reason: verdict.reason });
    act();
    return true;
  };

  const begin = (entry: PlanEntry): void => {
    const slot = slots.trial ?? slotOf(entry);
    // Calls until now went to what ran before.
    catchUp();
    void teller.begins(slot, decided());
    if (plan) {
      const arm = next?.armName ?? CANDIDATE_ARM;
      remember(plan, { isIn: true, arm: { name: arm, sha256: entryOf(plan, next?.armName).sha256 } });
    }
    const marker = { id: 'a', run: 'a', sha256: slot.file.sha256, slot: 'trial', phase: 'loading' } as const;
    slots = { ...firstAnswer(slots, { ...marker, at: platform.now() }, context()).state, markers: [] };
    settleEffect();
    if (effect.crashes) {
      isGone = true;
      parts.moved(number, false);
      return;
    }
    const past = plan && history.baseline(MODEL, plan.id, BASE_VERSION);
    watch = createTrialWatch(
      slots.trial?.rules ?? DEFAULT_TRIAL,
      past?.p95 === undefined ? {} : { p95Ms: 1000 * past.p95 },
    );
    recorder.opened(1000 * fleet.secondsOf(number));
    watch.verdict(platform.now());
    const soakMs = 1000 * (slots.trial?.rules.soakS ?? 0);
    const callsMs = ((slots.trial?.rules.minInferences ?? 0) * 3_600_000) / fleet.callsOf(number);
    parts.plan(number, 'judge', platform.now() + Math.max(soakMs, callsMs) + 1000);
  };

  const remember = (
    seen: ResolvedPlan,
    begun: Pick<NonNullable<SlotsState['plan']>, 'isIn' | 'arm'>,
  ): void => {
    const { id, bp, salt, cand, retryNonce } = seen;
    const facts = { id, bp, salt, cand: cand.sha256, retryNonce, ...begun };
    slots = seePlan(slots, { ...facts, verifiedAt: slots.plan?.verifiedAt ?? platform.now() }).state;
  };

  /** Decides, and goes on until there is nothing to do at once. */
  const act = (): void => {
    for (let turn = 0; turn < mostTurns; turn += 1) {
      const found = decide(plan, install, platform.now(), slots);
      next = found;
      if (found.dueAt !== undefined)
        parts.plan(number, 'decide', Math.max(found.dueAt, platform.now() + 1000));
      if (found.kind === 'fetch') {
        if (isFetching) break;
        isFetching = true;
        const tookMs = FETCH.medianMs * draws.spread(FETCH.sigma);
        parts.plan(number, 'fetched', platform.now() + tookMs);
        break;
      }
      if (found.kind === 'stay') break;
      if (found.kind === 'activate') {
        begin(found.entry);
        if (isGone) return;
      } else {
        if (found.to === 'base') break;
        watch = undefined;
        slots = revertTo(slots, found.to).state;
        settleEffect();
      }
    }
    teller.runs(running(), decided());
    const isMeasured = next !== undefined && armLabel(next) !== undefined;
    if (isMeasured && !isReporting) planReport();
  };

  const hear = (heard: ResolvedPlan, isNew: boolean): void => {
    plan = heard;
    if (!isNew || breaksPromise(heard, slots)) return;
    slots = slots.plan ? { ...slots, plan: { ...slots.plan, verifiedAt: platform.now() } } : slots;
    remember(heard, { isIn: false });
  };

  const planReport = (): void => {
    isReporting = true;
    const periodMs = 1000 * (plan?.report?.everyS ?? usualReportS);
    const delayMs = periodMs - ((platform.now() + fleet.phaseOf(number) * periodMs) % periodMs);
    parts.plan(number, 'report', platform.now() + delayMs);
  };

  const device: MeasuredDevice = {
    number,
    runsCandidate: () => isIn && !isGone,
    isAtRest: () =>
      !isGone && !isFetching && watch === undefined && slots.trial === undefined && !isReporting,
    slots: () => slots,
    follow: (heard, isNew) => {
      if (isGone) return;
      catchUp();
      hear(heard, isNew);
      act();
    },
    fetched: (heard) => {
      isFetching = false;
      if (isGone || !plan) return;
      catchUp();
      if (heard) hear(heard, true);
      const found = decide(plan, install, platform.now(), slots);
      if (found.kind === 'fetch') {
        const { id, trial, retryNonce } = plan;
        slots = stageTrial(slots, slotOf(found.entry), { plan: id, rules: trial, retryNonce }).state;
      }
      act();
    },
    judge: () => {
      if (isGone || !watch) return;
      catchUp();
      if (!watch || hasRejected()) return;
      const { trial } = slots;
      if (!trial || watch.verdict(platform.now()) !== 'passed') {
        parts.plan(number, 'judge', platform.now() + JUDGE_MS);
        return;
      }
      watch = undefined;
      slots = commitTrial(slots, trial.release.sha256, context()).state;
      telemetry.updated({ ...told, type: 'trial-passed', version: trial.release.version });
      act();
    },
    report: () => {
      isReporting = false;
      if (isGone) return;
      catchUp();
      send();
      const isMeasured = next !== undefined && armLabel(next) !== undefined;
      if (isMeasured || spool.open.length > 0 || spool.sealed.length > 0) planReport();
    },
    acknowledge: (reports) => {
      const gone = new Set(reports.map(({ epoch, seq }) => `${epoch} ${seq}`));
      spool = forget(spool, ({ epoch, seq }) => gone.has(`${epoch} ${seq}`), {});
    },
  };

  teller.runs(running(), undefined);
  settleEffect();
  call(CALLS_BEFORE);
  recorder.memory(memory * draws.spread(MEMORY.jitter));
  // Of its past only what it remembers itself counts.
  history.note(windows.cut());
  return device;
}

/** Decisions that may follow each other at once. */
const mostTurns = 8;
/** Seconds between two reports where a plan does not say. */
const usualReportS = 900;
/** What a device would keep on its disk; it never restarts. */
const noStore = {
  readRecord: async () => undefined,
  updateRecord: () => Promise.reject(new Error('There is no disk.')),
};
/** Simulated releases have no reference profiles. */
const noProfiles = {
  store: { blob: async () => undefined },
  transfers: { obtain: () => Promise.reject(new Error('There is nothing to fetch.')) },
  sync: { run: <Result>(task: () => Promise<Result>) => task(), signal: new AbortController().signal },
};
const failure = new BackendError('ERR_INLAY_RUN_FAILED', 'The simulated model has failed.');
const told = { at: 0, model: MODEL } as const;

function slotOf(release: PlanEntry): Slot {
  return { release, file: { sha256: release.sha256, length: release.length } };
}

function nameFrom({ uniform }: Draws, length: number): string {
  return base64Url(Uint8Array.from({ length }, () => Math.floor(256 * uniform())));
}
