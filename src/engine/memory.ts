/** One budget of bytes over all models: the ones that were not used for longest leave memory first. */

/** A model that takes memory. */
export interface MemoryEntry {
  isPinned: boolean;
  /** Whether no call needs it now. */
  readonly isIdle: boolean;
  /** Bytes that it takes now; 0 when it is put away. */
  readonly sizeBytes: number;
  /** Frees its memory until it is used again. */
  putAway(): Promise<void>;
}

/** Keeps models within a budget. */
export interface Memory {
  /** Whether there is a budget at all. */
  readonly isLimited: boolean;
  readonly usedBytes: number;
  /** Whether so many bytes more are within the budget. */
  fits(sizeBytes: number): boolean;
  add(entry: MemoryEntry): void;
  remove(entry: MemoryEntry): void;
  /** A call needs the entry. */
  used(entry: MemoryEntry): void;
  /** The entry takes more than before. */
  grown(entry: MemoryEntry): void;
  /** Something has become idle. */
  settle(): void;
}

/**
 * Creates the memory of one Inlay. A model that is in use or pinned stays, even over the budget; it leaves as soon as it
 * may.
 * @param onError gets what fails while a model is put away.
 */
export function createMemory(budgetBytes: number | undefined, onError: (error: unknown) => void): Memory {
  /** Least recently used first. */
  const entries = new Set<MemoryEntry>();
  const leaving = new Set<MemoryEntry>();
  const used = (): number => {
    let sum = 0;
    for (const entry of entries) if (!leaving.has(entry)) sum += entry.sizeBytes;
    return sum;
  };

  const settle = (keep?: MemoryEntry): void => {
    if (budgetBytes === undefined) return;
    let over = used() - budgetBytes;
    for (const entry of entries) {
      if (over <= 0) return;
      if (entry === keep || entry.isPinned || !entry.isIdle || entry.sizeBytes === 0 || leaving.has(entry))
        continue;
      over -= entry.sizeBytes;
      leaving.add(entry);
      entry.putAway().then(
        () => {
          leaving.delete(entry);
          // A call may have brought it back meanwhile, when it did not count.
          if (entry.sizeBytes > 0) settle();
        },
        (error: unknown) => {
          leaving.delete(entry);
          onError(error);
        },
      );
    }
  };
  const touch = (entry: MemoryEntry): void => {
    entries.delete(entry);
    entries.add(entry);
  };

  return {
    isLimited: budgetBytes !== undefined,
    get usedBytes() {
      return used();
    },
    fits: (sizeBytes) => budgetBytes === undefined || used() + sizeBytes <= budgetBytes,
    add: (entry) => {
      touch(entry);
      settle(entry);
    },
    remove: (entry) => void entries.delete(entry),
    used: touch,
    grown: (entry) => {
      settle(entry);
    },
    settle: () => {
      settle();
    },
  };
}
