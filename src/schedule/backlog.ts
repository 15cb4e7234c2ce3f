import type { Job } from './job.ts';

/** Limits of a {@link Backlog}. */
export interface BacklogLimits {
  readonly maxJobs: number;
  readonly maxBytes: number;
}

/** The waiting jobs of one priority; the others hang on the newest. */
export interface Level {
  readonly priority: number;
  newest: Job | undefined;
}

/** How much of one model waits, and which of it to give up first. */
export interface Backlog {
  readonly length: number;
  readonly sizeBytes: number;
  add(job: Job): void;
  /** Forgets a job that waited. O(1). */
  remove(job: Job): void;
  /** Why a further job does not fit; `undefined` if it does. */
  fullness(job: Pick<Job, 'sizeBytes'>): 'queue_full' | 'bytes_full' | undefined;
  /** The newest job of the lowest priority, if that is below `priority`. */
  lowest(priority: number): Job | undefined;
}

/** Creates an empty backlog. */
export function createBacklog({ maxJobs, maxBytes }: BacklogLimits): Backlog {
  const levels = new Map<number, Level>();
  let length = 0;
  let sizeBytes = 0;
  return {
    get length() {
      return length;
    },
    get sizeBytes() {
      return sizeBytes;
    },
    add: (job) => {
      let level = levels.get(job.priority);
      if (level === undefined) {
        level = { priority: job.priority, newest: undefined };
        levels.set(job.priority, level);
      }
      job.level = level;
      job.older = level.newest;
      if (job.older !== undefined) job.older.newer = job;
      level.newest = job;
      length += 1;
      sizeBytes += job.sizeBytes;
    },
    remove: (job) => {
      const { older, newer, level } = job;
      if (older !== undefined) older.newer = newer;
      if (newer !== undefined) newer.older = older;
      else if (level !== undefined) level.newest = older;
      job.older = undefined;
      job.newer = undefined;
      length -= 1;
      sizeBytes -= job.sizeBytes;
    },
    fullness: (job) => {
      if (length >= maxJobs) return 'queue_full';
      // What is larger than the limit alone is let in when nothing else waits.
      return length > 0 && sizeBytes + job.sizeBytes > maxBytes ? 'bytes_full' : undefined;
    },
    lowest: (priority) => {
      let lowest: Level | undefined;
      for (const level of levels.values()) {
        const isLower = lowest === undefined || level.priority < lowest.priority;
        if (level.newest !== undefined && isLower) lowest = level;
      }
      return lowest === undefined || lowest.priority >= priority ? undefined : lowest.newest;
    },
  };
}
