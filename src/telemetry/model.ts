/** The telemetry of one model: as what its calls count, and what its updater does. */

import type { UpdateEvent } from '../update/events.ts';
import type { Role, UpdateObserver } from '../update/role.ts';
import { createRecorder, type RecorderParts } from './create-recorder.ts';
import type { Baseline, History, Standing } from './history.ts';
import type { Profile } from './profile.ts';
import { readProfile } from './profile-reader.ts';
import type { Recorder, RecordingContext } from './recorder.ts';

/** What the engine tells of one model. */
export interface ModelTelemetry {
  readonly recorder: Recorder;
  /** What a call that begins now counts for; `undefined` before something runs. */
  context(): RecordingContext | undefined;
  /** A call was repeated in the shadow. */
  shadow(outcome: 'alike' | 'unlike' | 'failed', ms: number): void;
  readonly observer: UpdateObserver;
}

/** A model, for whoever reports. */
export interface ReportedModel extends ModelTelemetry {
  /** Hears what is written down about its updates. */
  updated(event: UpdateEvent): void;
  /** What the plan asks for. */
  rules(): { readonly everyMs: number | undefined; readonly first: boolean };
}

/** What {@link createModelTelemetry} works with. */
export interface ModelTelemetryParts extends RecorderParts {
  readonly history: History;
  /** Takes note of what was counted so far: a baseline is about to be made of it. */
  readonly settle: () => void;
  /** Brings a report under way at once, and resolves when it is safe. */
  readonly report: () => Promise<void>;
  /** Hears that the plan asks for another period. */
  readonly onRules: () => void;
}

/** Versions that reports can name. */
const VERSION = /^[!-~]{1,128}$/;
/** What a release counts as that the device does not say the version of. */
const EMBEDDED = 'embedded';

/** Creates the telemetry of one model. */
export function createModelTelemetry(parts: ModelTelemetryParts): ReportedModel {
  const { model, history } = parts;
  const recorder = createRecorder(parts);
  /** Contexts by what they say: what is the same counts in the same window. */
  const contexts = new Map<string, RecordingContext>();
  const profiles = new Map<string, Profile>();
  let role: Role | undefined;
  let present: RecordingContext | undefined;
  let shadow: RecordingContext | undefined;
  let everyMs: number | undefined;
  let first = true;
  /** Bytes that came before anything ran. */
  let early = 0;

  const standingOf = ({ version = EMBEDDED, place }: Role): Standing => ({
    version: VERSION.test(version) ? version : 'other',
    ...place,
  });

  /** Whoever is control is judged by what it ran before as well. */
  const baselineOf = (rollout: string, { version, arm }: Standing): Baseline | undefined => {
    if (!history.isFrozen(model, rollout)) parts.settle();
    const isOther = present !== undefined && present.version !== version;
    return history.baseline(model, rollout, arm === 'c' ? version : isOther ? present?.version : undefined);
  };

  const contextOf = (standing: Standing, profileHash?: string): RecordingContext => {
    const { version, rollout } = standing;
    const profile = profileHash === undefined ? undefined : profiles.get(profileHash);
    const name = JSON.stringify([version, rollout, standing.stage, standing.arm, profile && profileHash]);
    const known = contexts.get(name);
    if (known !== undefined) return known;
    const isJudged = rollout !== undefined && standing.arm !== undefined;
    const baseline = isJudged ? baselineOf(rollout, standing) : undefined;
    const created: RecordingContext = {
      ...standing,
      ...(profile && profileHash !== undefined && { profile, profileHash }),
      ...(baseline && { baseline }),
    };
    contexts.set(name, created);
    return created;
  };

  /** A release that is known to have run, as what it counted then. */
  const contextOfVersion = (version: string | undefined): RecordingContext | undefined => {
    const candidate = history.candidate(model);
    if (version === undefined || version === present?.version) return present;
    return contextOf(candidate?.version === version ? candidate : { version });
  };

  const enter = (): void => {
    if (role === undefined) return;
    const standing = standingOf(role);
    const next = contextOf(standing, role.profile?.sha256.slice(0, 16));
    if (next === present) return;
    present = next;
    recorder.enter(next);
    if (early > 0) recorder.received(early);
    early = 0;
  };

  return {
    recorder,
    context: () => present,
    shadow: (outcome, ms) => {
      if (shadow !== undefined) recorder.shadow(outcome, ms, shadow);
    },
    rules: () => ({ everyMs, first }),
    observer: {
      runs: (next) => {
        role = next;
        enter();
      },
      begins: async (next) => {
        const standing = standingOf(next);
        const context = contextOf(standing, next.profile?.sha256.slice(0, 16));
        history.setCandidate(model, standing);
        recorder.activated(context);
        if (standing.arm !== undefined && first) await parts.report();
      },
      shadows: (next) => {
        const standing = standingOf(next);
        shadow = contextOf(standing);
        history.setCandidate(model, standing);
      },
      asks: (rules) => {
        const before = everyMs;
        everyMs = rules && rules.everyS * 1000;
        first = rules?.first ?? true;
        if (everyMs !== before) parts.onRules();
      },
      received: (count) => {
        if (present === undefined) early += count;
        else recorder.received(count, present);
      },
      wantsProfile: () => parts.consent() === 'full',
      profile: ({ sha256 }, bytes) => {
        try {
          profiles.set(sha256.slice(0, 16), readProfile(bytes));
        } catch {
          // Features are not counted then; everything else is.
          return;
        }
        enter();
      },
    },
    updated: ({ type, version, reason }) => {
      const context = contextOfVersion(version);
      if (context === undefined) return;
      if (type === 'trial-passed') recorder.committed(context);
      if (type === 'way-failed') recorder.fellBack(reason ?? 'other', context);
      if (type === 'strike' && reason === 'crash') recorder.crashed(context);
      if (type !== 'rejected') return;
      recorder.rejected(reason ?? 'other', context);
      if (first) void parts.report();
    },
  };
}
