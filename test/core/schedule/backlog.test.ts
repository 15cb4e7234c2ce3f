import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createBacklog } from '../../../src/schedule/backlog.ts';
import type { Job } from '../../../src/schedule/job.ts';
import { newJob } from './virtual.ts';

const UNLIMITED = { maxJobs: Infinity, maxBytes: Infinity };

describe('backlog', () => {
  it('knows count, bytes and the newest of the lowest priority after any comings and goings', () => {
    const command = fc.record({
      adds: fc.boolean(),
      priority: fc.integer({ min: -2, max: 2 }),
      pick: fc.nat(),
    });
    fc.assert(
      fc.property(fc.array(command, { maxLength: 120 }), (commands) => {
        const backlog = createBacklog(UNLIMITED);
        let waiting: Job[] = [];
        for (const { adds, priority, pick } of commands) {
          if (adds || waiting.length === 0) {
            const job = newJob({ priority, sizeBytes: pick % 1000 });
            backlog.add(job);
            waiting.push(job);
          } else {
            const job = waiting[pick % waiting.length] as Job;
            backlog.remove(job);
            waiting = waiting.filter((other) => other !== job);
          }
          expect(backlog.length).toBe(waiting.length);
          expect(backlog.sizeBytes).toBe(waiting.reduce((sum, job) => sum + job.sizeBytes, 0));
          for (const asking of [-2, 0, 3]) {
            const lowest = Math.min(...waiting.map((job) => job.priority));
            const newest = waiting.filter((job) => job.priority === lowest).at(-1);
            expect(backlog.lowest(asking)).toBe(lowest < asking ? newest : undefined);
          }
        }
      }),
    );
  });

  it('holds on to no job that has left', () => {
    const backlog = createBacklog(UNLIMITED);
    const jobs = Array.from({ length: 3 }, () => newJob());
    for (const job of jobs) backlog.add(job);
    backlog.remove(jobs[1] as Job);
    expect(jobs[1]).toMatchObject({ older: undefined, newer: undefined });
    expect(jobs[0]?.newer).toBe(jobs[2]);
    expect(jobs[2]?.older).toBe(jobs[0]);
  });

  it('finds a job to give up without looking at the others', () => {
    const backlog = createBacklog(UNLIMITED);
    let looks = 0;
    const jobs = Array.from({ length: 10_000 }, (_, at) => {
      const job = newJob();
      return Object.defineProperty(job, 'priority', {
        get: () => {
          looks += 1;
          return at % 5;
        },
      });
    });
    for (const job of jobs) backlog.add(job);
    looks = 0;
    expect(backlog.lowest(1)).toBe(jobs[9995]);
    backlog.remove(jobs[5000] as Job);
    expect(looks).toBeLessThan(10);
  });

  it('is full at its number of jobs', () => {
    const backlog = createBacklog({ maxJobs: 2, maxBytes: Infinity });
    backlog.add(newJob());
    expect(backlog.fullness(newJob())).toBeUndefined();
    backlog.add(newJob());
    expect(backlog.fullness(newJob())).toBe('queue_full');
  });

  it('is full when a job would exceed its bytes, but lets a larger one in when nothing else waits', () => {
    const backlog = createBacklog({ maxJobs: 10, maxBytes: 100 });
    expect(backlog.fullness(newJob({ sizeBytes: 1000 }))).toBeUndefined();
    backlog.add(newJob({ sizeBytes: 60 }));
    expect(backlog.fullness(newJob({ sizeBytes: 40 }))).toBeUndefined();
    expect(backlog.fullness(newJob({ sizeBytes: 41 }))).toBe('bytes_full');
  });
});
