/** How far a model has been loaded. */
export interface LoadProgress {
  /** Fetching its bytes, opening it in an inference library, or running it for the first time. */
  readonly phase: 'download' | 'open' | 'warm-up';
  readonly loadedBytes: number;
  /** Absent where the server does not say. */
  readonly totalBytes?: number;
}

/** Hears how far a model has been loaded. */
export type ProgressListener = (progress: LoadProgress) => void;

/** A listener of the host, as one load uses it. */
export interface LoadListener {
  /** Passes progress on; what the host throws stays with the host. */
  readonly tell: ProgressListener;
  /** The load is over; what is opened later, such as an update, is none of its business. */
  end(): void;
}

/** Wraps a listener of the host for one load. */
export function createLoadListener(
  listener: ProgressListener,
  onError: (error: unknown) => void,
): LoadListener {
  let isOver = false;
  return {
    tell: (progress) => {
      if (isOver) return;
      try {
        listener(progress);
      } catch (error) {
        onError(error);
      }
    },
    end: () => {
      isOver = true;
    },
  };
}
