import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createPacer } from '../../../src/workers/pacer.ts';

/** An event loop that goes round when told to. */
function eventLoop() {
  const tasks: (() => void)[] = [];
  const loop = {
    time: 0,
    turns: 0,
    nextTurn: (task: () => void): void => void tasks.push(task),
    goRound: (): boolean => {
      loop.turns += 1;
      const due = tasks.splice(0);
      for (const task of due) task();
      return due.length > 0;
    },
  };
  return loop;
}

describe('createPacer', () => {
  it('passes answers on at once while they take less than a millisecond', () => {
    const loop = eventLoop();
    const pace = createPacer(loop.nextTurn, () => loop.time);
    const seen: number[] = [];
    for (let i = 0; i < 10; i += 1) {
      loop.time += 0.09;
      pace(() => seen.push(i));
    }
    expect(seen).toHaveLength(10);
  });

  it('lets the event loop go round after a millisecond of answers', () => {
    const loop = eventLoop();
    const pace = createPacer(loop.nextTurn, () => loop.time);
    const turns: number[] = [];
    for (let i = 0; i < 8; i += 1) {
      pace(() => {
        loop.time += 0.5;
        turns.push(loop.turns);
      });
    }
    while (loop.goRound());
    expect(turns).toEqual([0, 0, 1, 2, 3, 4, 5, 6]);
  });

  it('passes every answer on once, in order, however long each takes and whenever the loop goes round', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.double({ min: 0, max: 5, noNaN: true }), fc.boolean())), (answers) => {
        const loop = eventLoop();
        const pace = createPacer(loop.nextTurn, () => loop.time);
        const seen: number[] = [];
        answers.forEach(([takes, goesRound], i) => {
          pace(() => {
            loop.time += takes;
            seen.push(i);
          });
          if (goesRound) loop.goRound();
        });
        while (loop.goRound());
        expect(seen).toEqual([...answers.keys()]);
      }),
    );
  });
});
