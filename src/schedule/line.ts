/** What a {@link Line} orders. */
export interface Standing {
  /** Smaller goes first; equal ones go in the order in which they came. */
  readonly urgency: number;
  /** Set by the line. */
  isWaiting: boolean;
  /** Set by the line: its turn among equals. */
  order: number;
}

/** A waiting line: the most urgent first, leaving at any time. */
export interface Line<T extends Standing> {
  /** Number of those that wait. */
  readonly length: number;
  push(item: T): void;
  /** The most urgent one. */
  first(): T | undefined;
  /** Takes the most urgent one out. */
  shift(): T | undefined;
  /** Takes one out that waits. O(1), amortised. */
  remove(item: T): void;
  /** How many would go before an item of this urgency; those that left lately may be counted. */
  ahead(urgency: number): number;
  /** Calls `visit` for each one that waits, in no order. */
  each(visit: (item: T) => void): void;
}

/**
 * Creates a waiting line. What comes in order, as nearly everything does, stands in a plain list; what pushes in stands
 * in a heap. Those that leave are marked and passed over, and swept up when they are the majority.
 */
export function createLine<T extends Standing>(): Line<T> {
  let list: (T | undefined)[] = [];
  let head = 0;
  let heap: T[] = [];
  let length = 0;

  let pushed = 0;

  const before = (a: T, b: T): boolean =>
    a.urgency < b.urgency || (a.urgency === b.urgency && a.order < b.order);

  const heapPush = (item: T): void => {
    let at = heap.push(item) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = heap[parent] as T;
      if (!before(item, above)) break;
      heap[at] = above;
      at = parent;
    }
    heap[at] = item;
  };
  const heapShift = (): void => {
    const last = heap.pop() as T;
    const size = heap.length;
    if (size === 0) return;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= size) break;
      if (child + 1 < size && before(heap[child + 1] as T, heap[child] as T)) child += 1;
      if (!before(heap[child] as T, last)) break;
      heap[at] = heap[child] as T;
      at = child;
    }
    heap[at] = last;
  };
  const listShift = (): void => {
    list[head] = undefined;
    head += 1;
    if (head === list.length) {
      list.length = 0;
      head = 0;
    } else if (head > 1024 && head * 2 > list.length) {
      list = list.slice(head);
      head = 0;
    }
  };

  /** Passes over those that have left. @returns whether the list has the most urgent one. */
  const settle = (): boolean => {
    while (head < list.length && !(list[head] as T).isWaiting) listShift();
    while (heap.length > 0 && !(heap[0] as T).isWaiting) heapShift();
    if (head === list.length) return false;
    return heap.length === 0 || !before(heap[0] as T, list[head] as T);
  };
  const sweep = (): void => {
    list = list.slice(head).filter((item) => (item as T).isWaiting);
    head = 0;
    // A sorted list is a heap.
    heap = heap.filter((item) => item.isWaiting).sort((a, b) => (before(a, b) ? -1 : 1));
  };

  return {
    get length() {
      return length;
    },
    push: (item) => {
      item.isWaiting = true;
      item.order = pushed;
      pushed += 1;
      length += 1;
      const last = list[list.length - 1];
      if (last === undefined || last.urgency <= item.urgency) list.push(item);
      else heapPush(item);
    },
    first: () => (settle() ? list[head] : heap[0]),
    shift: () => {
      const fromList = settle();
      const item = fromList ? list[head] : heap[0];
      if (item === undefined) return undefined;
      if (fromList) listShift();
      else heapShift();
      item.isWaiting = false;
      length -= 1;
      return item;
    },
    remove: (item) => {
      if (!item.isWaiting) return;
      item.isWaiting = false;
      length -= 1;
      if (length === 0) {
        list = [];
        head = 0;
        heap = [];
      } else if (list.length - head + heap.length > 2 * length + 64) sweep();
    },
    ahead: (urgency) => {
      let [low, high] = [head, list.length];
      while (low < high) {
        const middle = (low + high) >> 1;
        if ((list[middle] as T).urgency <= urgency) low = middle + 1;
        else high = middle;
      }
      let count = low - head;
      // Beyond this many, the worst is assumed: the answer is an estimate, and has to stay cheap.
      if (heap.length > 256) count += heap.length;
      else for (const item of heap) if (item.urgency <= urgency) count += 1;
      return Math.min(count, length);
    },
    each: (visit) => {
      for (let at = head; at < list.length; at += 1) {
        const item = list[at] as T;
        if (item.isWaiting) visit(item);
      }
      for (const item of heap) if (item.isWaiting) visit(item);
    },
  };
}
