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

/** Shields a load from a listener of the host that throws. */
export function shield(listener: ProgressListener, onError: (error: unknown) => void): ProgressListener {
  return (progress) => {
    try {
      listener(progress);
    } catch (error) {
      onError(error);
    }
  };
}
