/** What a look comes to: tripwires first, then evidence, then time. */

import { FAIL_RATIOS, logMeanExp, NO_COUNTS, ratioOf, type Counts } from '../../stats/e-process.ts';
import { logShareDifference } from '../../stats/share-difference.ts';
import { logSampleRatio, SAMPLE_RATIO_LIMIT } from '../../stats/sample-ratio.ts';
import { compareArms } from './compare-arms.ts';
import {
  alphaOf,
  FULL_CONSENT_GUARDS,
  harmlessRate,
  isProven,
  MAX_LOSS,
  MAX_SHADOW_FAILED,
  MAX_UNLIKE,
  SHADOW_RUNS,
  SMALL_FLEET,
} from './defaults.ts';
import type { LookEvidence, LookInputs, Sides, StageState } from './look.ts';
import { odds } from './odds.ts';
import type { GuardName } from './programme.ts';

/** What is to be done, and why. */
export interface Decision {
  /**
   * `fail`: act as the programme says. `pass`: the stage is done. `hold`: something keeps the numbers from counting, or the
   * time is over without a verdict. `wait`: go on.
   */
  readonly kind: 'wait' | 'fail' | 'pass' | 'hold';
  /** What decided. */
  readonly by:
    | GuardName
    | 'fatal'
    | 'tripwire'
    | 'sample-ratio'
    | 'loss'
    | 'consent'
    | 'no-data'
    | 'time'
    | 'soak'
    | 'shadow'
    | 'evidence';
  /** One sentence with the figures. */
  readonly text: string;
}

/** Why there is no verdict on answers in different bins. */
export const APART =
  'quality: the profiles of the two versions count answers in different bins, which cannot be compared; publish with the bins of the version before.';

/** Devices that a tripwire needs: of a kind, as a share of all, and judged ones for the one on bad devices. */
const tripDevices = 3;
const tripShare = 0.1;
const badShare = 0.5;
const firstJudged = 10;
/** Share of devices that may give up what is good, and the evidence that ends a stage because more do. */
const toleratedRejections = 0.02;
const givenUpLimit = Math.log(1000);

/** Decides. Pure. */
export function decide(
  state: StageState,
  logs: Readonly<Partial<Record<GuardName, LookEvidence>>>,
  inputs: LookInputs,
): Decision {
  const { rules, at, stageAt } = inputs;
  const { limits } = rules;
  const ageS = (at - stageAt) / 1000;
  const isOver = ageS >= limits.maxS;
  const hasSoaked = ageS >= (limits.durationS ?? 0) + limits.soakS;
  const failed = tripwire(state, inputs) ?? shadowFailure(inputs);
  if (failed) return failed;
  // What is broken speaks for nothing; the tripwires above need no sample. At first the arms fill up at their own pace.
  const broken = (hasSoaked ? overfull(inputs) : undefined) ?? lossy(inputs);
  if (broken) return broken;
  const evident = failure(state, logs, inputs) ?? unlikeConsent(logs, inputs);
  if (evident) return evident;

  if (hasSoaked) {
    const apart = apartBins(inputs);
    if (apart) return apart;
    const passed = passing(state, logs, inputs);
    if (passed) return passed;
  }
  if (!inputs.hasCalls && (inputs.shadow?.[0] ?? 0) === 0) {
    return {
      kind: isOver ? 'hold' : 'wait',
      by: 'no-data',
      text: `${inputs.devices.treated} devices have the candidate and none of them has reported a call; no data passes no stage.`,
    };
  }
  if (isOver) return overtime(state, inputs);
  return {
    kind: 'wait',
    by: hasSoaked ? 'evidence' : 'time',
    text: hasSoaked
      ? `Clean so far; ${openQuestion(state, logs, inputs)}.`
      : `Clean so far; it soaks for another ${Math.ceil(((limits.durationS ?? 0) + limits.soakS - ageS) / 60)} min.`,
  };
}

/** Tells whether a stage has so few judged devices that nothing is proven. */
function isSmall({ any }: Pick<StageState, 'any'>, bp: number): boolean {
  return any.treated < SMALL_FLEET || (bp < 10_000 && any.control < SMALL_FLEET);
}

function tripwire({ any, evidence }: StageState, inputs: LookInputs): Decision | undefined {
  const { devices, fatal, rejected, rules } = inputs;
  if (isTripped(fatal, devices)) {
    const text = `Calls ended the app on ${fatal.treated} of ${devices.treated} devices that have the candidate.`;
    return { kind: 'fail', by: 'fatal', text };
  }
  const isGivenUp =
    isTripped(rejected, devices) || logGivenUp(rejected.treated, devices.treated) >= givenUpLimit;
  if (rules.options.guards.includes('rejections') && isGivenUp) {
    const text = `${rejected.treated} of ${devices.treated} devices gave the candidate up by themselves.`;
    return { kind: 'fail', by: 'rejections', text };
  }
  if (isMostlyBad(any) && (any.control < firstJudged || isUnlikeControl(any))) {
    const text = `${any.treatedBad} of the first ${any.treated} devices are worse off than before.`;
    return { kind: 'fail', by: 'tripwire', text };
  }
  // People close apps, too: without a control, silence says nothing.
  const silence = evidence.silence?.total ?? NO_COUNTS;
  if (isMostlyBad(silence) && silence.control >= firstJudged && isUnlikeControl(silence)) {
    const text = `${silence.treatedBad} of the first ${silence.treated} devices went silent when the candidate began.`;
    return { kind: 'fail', by: 'silence', text };
  }
  return undefined;
}

function isMostlyBad({ treated, treatedBad }: Counts): boolean {
  return treated >= firstJudged && treatedBad >= badShare * treated;
}

function isUnlikeControl({ treated, treatedBad, control, controlBad }: Counts): boolean {
  return treatedBad / treated >= 2 * (controlBad / control);
}

/**
 * Logarithm of the e-value that more sound devices give the candidate up than ever should. It counts those that began, of
 * which some will still do so: that can only lower it, and so it need not wait for anybody's calls.
 */
function logGivenUp(hits: number, began: number): number {
  return logMeanExp(
    FAIL_RATIOS.map((ratio) => {
      const rate = ratio * toleratedRejections;
      const fewer = Math.log1p(-rate) - Math.log1p(-toleratedRejections);
      return hits * Math.log(ratio) + Math.max(0, began - hits) * fewer;
    }),
  );
}

/** Three devices and a tenth of all, unless the control has half as many: then it is not the candidate. */
function isTripped(hit: Sides, all: Sides): boolean {
  if (hit.treated < tripDevices || hit.treated < tripShare * all.treated) return false;
  return all.control === 0 || hit.treated / all.treated >= 2 * (hit.control / all.control);
}

/** Too few may still be downloading, and the silent ones are counted elsewhere; too many cannot be right. */
function overfull({ devices, treatedShare }: LookInputs): Decision | undefined {
  const { treated, control } = devices;
  const expected = Math.round((treated + control) * (treatedShare ?? 1));
  if (!isSkewed(devices, treatedShare) || treated <= expected) return undefined;
  const text = `${treated} devices report the candidate where ${expected} were assigned; the arms cannot be compared.`;
  return { kind: 'hold', by: 'sample-ratio', text };
}

function isSkewed({ treated, control }: Sides, share: number | undefined): boolean {
  if (share === undefined || share <= 0 || share >= 1) return false;
  return logSampleRatio(treated, control, share) >= Math.log(SAMPLE_RATIO_LIMIT);
}

function lossy({ loss }: LookInputs): Decision | undefined {
  if (!loss || Math.max(loss.treated, loss.control) <= MAX_LOSS) return undefined;
  if (Math.max(loss.treated, loss.control) <= 2 * Math.min(loss.treated, loss.control)) return undefined;
  const text =
    `${percent(loss.treated)} of the candidate's reports and ${percent(loss.control)} of the control's were lost; ` +
    'the arms cannot be compared.';
  return { kind: 'hold', by: 'loss', text };
}

/** Tells whether people of the two sides agreed to full reports in different shares: then their counts are no like samples. */
export function isConsentSkewed({ devices, full }: Pick<LookInputs, 'devices' | 'full'>): boolean {
  if (!full) return false;
  const logE = logShareDifference(
    { n: devices.treated, hits: full.treated },
    { n: devices.control, hits: full.control },
  );
  return logE >= Math.log(SAMPLE_RATIO_LIMIT);
}

/** Holds what rests on full reports, where it would have decided; the other guards go on. */
function unlikeConsent(
  logs: Readonly<Partial<Record<GuardName, LookEvidence>>>,
  inputs: LookInputs,
): Decision | undefined {
  const { devices, full, rules } = inputs;
  if (!full || !isConsentSkewed(inputs)) return undefined;
  const { guards, required } = rules.options;
  const limit = -Math.log(alphaOf(rules.options, rules.stage));
  const held = FULL_CONSENT_GUARDS.filter(
    (guard) => required.includes(guard) || (guards.includes(guard) && (logs[guard]?.fail ?? 0) >= limit),
  );
  if (held.length === 0) return undefined;
  const text =
    `${percent(full.treated / devices.treated)} of the devices that have the candidate report in full and ` +
    `${percent(full.control / devices.control)} of the control; ${held.join(' and ')} cannot be compared.`;
  return { kind: 'hold', by: 'consent', text };
}

/** Answers that are counted in different bins never come to a verdict: whoever asks for one is to know. */
function apartBins({ isApart, rules: { options } }: LookInputs): Decision | undefined {
  if (isApart !== true || !options.required.includes('quality')) return undefined;
  return { kind: 'hold', by: 'quality', text: APART };
}

function failure(
  state: StageState,
  logs: Readonly<Partial<Record<GuardName, LookEvidence>>>,
  inputs: LookInputs,
): Decision | undefined {
  const { options, stage } = inputs.rules;
  const limit = -Math.log(alphaOf(options, stage));
  const isSkewedConsent = isConsentSkewed(inputs);
  for (const guard of options.guards) {
    if (isSkewedConsent && FULL_CONSENT_GUARDS.includes(guard)) continue;
    const log = logs[guard]?.fail ?? 0;
    if (log < limit) continue;
    if (guard === 'biz') {
      const { treated, control } = state.biz;
      const ratio = treated.sum / treated.n / (control.sum / control.n);
      if (ratio > 1 - (options.biz?.margin ?? 0)) continue;
      const text = `The value of ${options.biz?.name} is ${percent(ratio)} of the control's: evidence ${odds(log)}, where ${odds(limit)} suffices.`;
      return { kind: 'fail', by: guard, text };
    }
    const counts = state.evidence[guard]?.total;
    const ratio = counts && ratioOf(counts);
    if (!counts || (ratio ?? 0) < options.minRatio) continue;
    const text =
      `${guard}: ${counts.treatedBad} of ${counts.treated} devices are worse off, and ${counts.controlBad} of ` +
      `${counts.control} in the control: evidence ${odds(log)}, where ${odds(limit)} suffices.`;
    return { kind: 'fail', by: guard, text };
  }
  return undefined;
}

function passing(
  state: StageState,
  logs: Readonly<Partial<Record<GuardName, LookEvidence>>>,
  inputs: LookInputs,
): Decision | undefined {
  const { rules, hasCalls, devices, treatedShare } = inputs;
  const { soakOnly, strategy, limits, stage } = rules;
  if (strategy === 'shadow') return shadowPass(inputs);
  if (!hasCalls) {
    // What everybody has is not measured any more, but was in the stages before.
    if (limits.bp < 10_000 || stage === 0) return undefined;
    const text = 'All devices have been offered it for the time asked for, after stages that have passed.';
    return { kind: 'pass', by: 'soak', text };
  }
  const isLearning = strategy === 'ab' || strategy === 'bandit';
  if (isLastOfTest(inputs)) return testResult(state, inputs, false);
  // Nobody is left to compare with.
  const isAlone = limits.bp >= 10_000;
  if (soakOnly || isAlone || isLearning) {
    const text = `${devices.treated} devices had the candidate for the time asked for, and the tripwires are clean.`;
    return { kind: 'pass', by: 'soak', text };
  }
  if (missing(logs, inputs).length > 0 || isSmall(state, limits.bp)) return undefined;
  if (isSkewed(devices, treatedShare)) return undefined;
  const { required } = rules.options;
  const text =
    required.length === 0
      ? 'The tripwires are clean, and no guard is required.'
      : `${required.join(', ')}: proven to be below ${rules.options.marginRatio} times the control, or ${percent(harmlessRate(rules.options))} of devices.`;
  return { kind: 'pass', by: 'evidence', text };
}

/** Required guards without proof. */
function missing(
  logs: Readonly<Partial<Record<GuardName, LookEvidence>>>,
  { rules: { options, stage } }: LookInputs,
): readonly GuardName[] {
  const failAt = -Math.log(alphaOf(options, stage));
  // Tripwires are proven by not going off.
  return options.required.filter(
    (guard) => guard !== 'rejections' && !isProven(logs[guard] ?? { fail: 0, pass: 0 }, failAt),
  );
}

function openQuestion(
  state: StageState,
  logs: Readonly<Partial<Record<GuardName, LookEvidence>>>,
  inputs: LookInputs,
): string {
  const { rules, devices, shadow } = inputs;
  if (rules.strategy === 'shadow')
    return `${shadow?.[0] ?? 0} of ${SHADOW_RUNS} runs in the shadow are counted`;
  if (isLastOfTest(inputs)) return 'the arms cannot be told apart yet';
  if (isSmall(state, rules.limits.bp)) {
    return `${state.any.treated} devices and ${state.any.control} of the control are judged, and ${SMALL_FLEET} of each are needed`;
  }
  const guards = missing(logs, inputs);
  return guards.length > 0
    ? `${guards.join(', ')} not proven yet`
    : `only ${devices.treated} devices report the candidate, fewer than were assigned`;
}

/** An A/B test is to tell its arms apart in the end; until then it goes on. */
function isLastOfTest({ rules: { strategy, stage, stages } }: LookInputs): boolean {
  return strategy === 'ab' && stage >= stages - 1;
}

function testResult(state: StageState, { rules }: LookInputs, isOver: boolean): Decision | undefined {
  const results = compareArms(state.arms, rules.options);
  const isTold = results.length > 0 && results.every(({ verdict }) => verdict !== 'open');
  if (!isTold && !isOver) return undefined;
  const text = results.map((result) => result.text).join(' ') || 'There were no two arms to compare.';
  return { kind: 'pass', by: isTold ? 'evidence' : 'time', text };
}

function overtime(state: StageState, inputs: LookInputs): Decision {
  const { rules, devices } = inputs;
  const result = isLastOfTest(inputs) ? testResult(state, inputs, true) : undefined;
  if (result) return result;
  const text = isSmall(state, rules.limits.bp)
    ? `The tripwires are clean; statistically nothing is proven with ${state.any.treated} judged devices and ${state.any.control} in the control, where ${SMALL_FLEET} of each are needed.`
    : `The time of the stage is over, and ${devices.treated} devices did not suffice for a verdict.`;
  const kind = { hold: 'hold', promote: 'pass', rollback: 'fail' } as const;
  return { kind: kind[rules.inconclusive], by: 'time', text };
}

function shadowFailure({ rules: { strategy }, shadow }: LookInputs): Decision | undefined {
  if (strategy !== 'shadow' || !shadow || shadow[0] < SHADOW_RUNS) return undefined;
  const [n, , unlike, failed] = shadow;
  if (unlike / n <= 2 * MAX_UNLIKE && failed / n <= 2 * MAX_SHADOW_FAILED) return undefined;
  return { kind: 'fail', by: 'shadow', text: shadowText(shadow) };
}

function shadowPass({ shadow }: LookInputs): Decision | undefined {
  if (!shadow || shadow[0] < SHADOW_RUNS) return undefined;
  const [n, , unlike, failed] = shadow;
  if (unlike / n > MAX_UNLIKE || failed / n > MAX_SHADOW_FAILED) return undefined;
  return { kind: 'pass', by: 'shadow', text: shadowText(shadow) };
}

function shadowText([n, , unlike, failed]: NonNullable<LookInputs['shadow']>): string {
  return `Of ${n} runs in the shadow ${percent(unlike / n)} gave something else and ${percent(failed / n)} failed.`;
}

function percent(share: number): string {
  return `${Number((100 * share).toPrecision(3))} %`;
}
