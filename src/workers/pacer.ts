/** Longest time, in milliseconds, that answers keep the event loop to themselves. */
const TURN_MS = 1;

/**
 * Lets timers and input have their turn while answers pour in. An event loop may hand over a thousand messages in one
 * go; when each answer makes its caller send the next call, and a small model answers at once, that takes 100 ms.
 *
 * Answers are passed on at once until they have filled {@link TURN_MS}; the others wait, in order, for one turn of the
 * event loop each.
 * @param nextTurn - runs a task when the event loop has gone round.
 * @param now - milliseconds.
 * @returns passes one answer on.
 */
export function createPacer(
  nextTurn: (task: () => void) => void,
  now: () => number,
): (answer: () => void) => void {
  const held: (() => void)[] = [];
  let turnBegan: number | undefined;

  const beginTurn = (): number => {
    nextTurn(endTurn);
    return (turnBegan = now());
  };
  const endTurn = (): void => {
    turnBegan = undefined;
    const answer = held.shift();
    if (answer === undefined) return;
    beginTurn();
    answer();
  };

  return (answer) => {
    const began = turnBegan ?? beginTurn();
    if (held.length === 0 && now() - began < TURN_MS) answer();
    else held.push(answer);
  };
}
