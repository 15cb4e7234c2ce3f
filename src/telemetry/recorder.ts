/** What the engine tells telemetry: one recorder per loaded model by name, told of every call. */

import type { TensorMap } from '../core/backend.ts';
import type { Profile } from './profile.ts';
import type { ReportWindow } from './report.ts';

/** What calls count for. A change begins a new window. */
export interface RecordingContext {
  readonly version: string;
  readonly rollout?: string;
  readonly stage?: number;
  /** `t`, `c` or the name of an arm. */
  readonly arm?: string;
  readonly profile?: Profile;
  /** First 8 bytes of the SHA-256 of the profile's file, hex. */
  readonly profileHash?: string;
  /** What this device did before the stage; every window of the context carries it. */
  readonly baseline?: NonNullable<ReportWindow['bl']>;
}

/**
 * Counts what happens to one model. Nothing here throws, blocks, or keeps tensors. What is given a context counts for that,
 * and otherwise for the one that was entered last: a call that is under way belongs to the version that it began with.
 */
export interface Recorder {
  enter(context: RecordingContext): void;
  /**
   * A call was answered.
   * @param ms - from call to answer, milliseconds.
   * @param id - the caller's name of this prediction, for feedback that comes later.
   */
  answered(ms: number, call: AnsweredCall): void;
  failed(error: unknown, ms: number, context?: RecordingContext): void;
  opened(ms: number, context?: RecordingContext): void;
  activated(context?: RecordingContext): void;
  /** A run of the app has ended in it. */
  crashed(context?: RecordingContext): void;
  /** A local trial has ended. */
  committed(context?: RecordingContext): void;
  rejected(reason: string, context?: RecordingContext): void;
  /** A cheaper way to an update led nowhere. */
  fellBack(reason: string, context?: RecordingContext): void;
  /** Bytes of an update have come. */
  received(bytes: number, context?: RecordingContext): void;
  /** Memory that the app takes now, bytes. */
  memory(bytes: number): void;
  /** Processor time that the app has taken for it since the last time, milliseconds. */
  processor(ms: number): void;
  shadow(outcome: 'alike' | 'unlike' | 'failed', ms: number, context?: RecordingContext): void;
  /** A label for an earlier prediction, or a business event. @returns whether the prediction is still known. */
  feedback(id: string, feedback: Feedback): boolean;
  event(name: string, value: number): void;
}

/** What is known of an answered call. */
export interface AnsweredCall {
  readonly feeds: TensorMap;
  readonly outputs: TensorMap;
  readonly id?: string | undefined;
  readonly queueMs?: number | undefined;
  /** Runs that it took; a batch is one run, of one of its calls. */
  readonly runs?: number | undefined;
  readonly cache?: 'hit' | 'miss' | undefined;
  readonly costMicros?: number | undefined;
  /** What it counts for, if that is not the context that was entered last. */
  readonly context?: RecordingContext | undefined;
}

/** What turned out about a prediction. Labels stay on the device; counts leave it. */
export interface Feedback {
  /** The right class: an index, or a value of the profile. */
  readonly label?: string | number;
  /** Whether the answer was right, where there is no class. */
  readonly correct?: boolean;
  /** Business events by name, with a value. */
  readonly events?: Readonly<Record<string, number>>;
}
