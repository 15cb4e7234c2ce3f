/** Turns something that gives pieces into something that they are taken from: the core has no async generators. */

/** Hands a piece over, and goes on when the next is asked for. */
export type Give<Piece> = (piece: Piece) => Promise<void>;

/**
 * Gives pieces to who asks for them, one at a time.
 * @param run - makes them, from the moment that the first is asked for. Who stops asking leaves it where it is.
 */
export function piecesOf<Piece>(run: (give: Give<Piece>) => Promise<void>): AsyncIterable<Piece> {
  const iterator = (): AsyncIterator<Piece, undefined> => {
    let isOver = false;
    let answer: (result: IteratorResult<Piece, undefined>) => void;
    let refuse: (error: unknown) => void;
    const end = (): void => {
      isOver = true;
      answer({ done: true, value: undefined });
    };
    const give: Give<Piece> = (value) =>
      new Promise((resolve) => {
        proceed = resolve;
        answer({ done: false, value });
      });
    let proceed = (): void => {
      run(give).then(end, (error: unknown) => {
        isOver = true;
        refuse(error);
      });
    };
    return {
      next: () =>
        new Promise((resolve, reject) => {
          answer = resolve;
          refuse = reject;
          if (isOver) end();
          else proceed();
        }),
      return: async () => {
        isOver = true;
        return { done: true, value: undefined };
      },
    };
  };
  return { [Symbol.asyncIterator]: iterator };
}
