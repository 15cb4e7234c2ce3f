import type { ProgrammeStatus } from './programme.ts';

/** Something that happened to a programme, for alerts and for whoever watches. */
export interface GuardEvent {
  readonly kind: 'started' | 'advanced' | 'failed' | 'held' | 'resumed' | 'ended';
  readonly at: number;
  readonly channel: string;
  readonly model: string;
  readonly version: string;
  readonly rollout: string;
  readonly stage: number;
  readonly status: ProgrammeStatus;
  /** Guard or rule that decided, or who did it. */
  readonly by: string;
  /** One sentence with the figures. */
  readonly text: string;
}
