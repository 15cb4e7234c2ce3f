/** What devices are to do at some time: a queue of events by time, in the order in which they were added. */

/** One event. */
export interface Event {
  /** Milliseconds since 1970. */
  readonly at: number;
  readonly device: number;
  readonly what: 'decide' | 'fetched' | 'judge' | 'report';
}

/** The events to come. */
export interface Agenda {
  add(event: Event): void;
  /** Takes out what comes before a time, in order. What is added meanwhile for a time before that comes with the next call. */
  take(before: number): readonly Event[];
}

/** Creates an empty agenda. @param spanMs - events within one such span are sorted together. */
export function createAgenda(spanMs: number): Agenda {
  const spans = new Map<number, Event[]>();
  let next = Infinity;
  return {
    add: (event) => {
      const span = Math.floor(event.at / spanMs);
      next = Math.min(next, span);
      const events = spans.get(span);
      if (events) events.push(event);
      else spans.set(span, [event]);
    },
    take: (before) => {
      const end = Math.floor(before / spanMs);
      const due: Event[] = [];
      for (; next < end; next += 1) {
        if (spans.size === 0) {
          next = Infinity;
          break;
        }
        const events = spans.get(next);
        if (!events) continue;
        spans.delete(next);
        for (const event of events.sort((a, b) => a.at - b.at)) due.push(event);
      }
      return due;
    },
  };
}
