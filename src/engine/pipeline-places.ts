/** Somebody who wants a place. Used once. */
export interface Guest {
  /** Called when the place is there. Must not throw. */
  start(): void;
  /** Set by the places: neighbours in the line. */
  before?: Guest | undefined;
  after?: Guest | undefined;
}

/** A bounded number of places, given in the order of arrival. */
export interface Places {
  readonly inFlight: number;
  readonly waiting: number;
  /** Starts the guest as soon as a place is free, maybe at once. */
  enter(guest: Guest): void;
  /** Frees the place of a guest that was started. */
  leave(): void;
  /** Lets a guest that waits leave the line. O(1). */
  giveUp(guest: Guest): void;
}

/** Creates places. */
export function createPlaces(limit: number = Infinity): Places {
  let first: Guest | undefined;
  let last: Guest | undefined;
  let inFlight = 0;
  let waiting = 0;
  let isAdmitting = false;

  const remove = (guest: Guest): void => {
    const { before, after } = guest;
    if (before === undefined) first = after;
    else before.after = after;
    if (after === undefined) last = before;
    else after.before = before;
    guest.before = guest.after = undefined;
    waiting -= 1;
  };

  const admit = (): void => {
    // A guest may leave before `start` returns. One loop admits them all, so that the stack stays flat.
    if (isAdmitting) return;
    isAdmitting = true;
    while (first !== undefined && inFlight < limit) {
      const guest = first;
      remove(guest);
      inFlight += 1;
      guest.start();
    }
    isAdmitting = false;
  };

  return {
    get inFlight() {
      return inFlight;
    },
    get waiting() {
      return waiting;
    },
    enter: (guest) => {
      if (last === undefined) first = guest;
      else last.after = guest;
      guest.before = last;
      last = guest;
      waiting += 1;
      admit();
    },
    leave: () => {
      inFlight -= 1;
      admit();
    },
    giveUp: remove,
  };
}
