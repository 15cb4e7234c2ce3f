/**
 * Facts about a span: never user data, never keys. Inlay's own are `inlay.model`, `inlay.version`, `inlay.backend`,
 * `inlay.batch.size` (samples), `inlay.queue_ms` and `inlay.compute_ms`; where OpenTelemetry's semantic conventions
 * have a name, that one is used.
 */
export type SpanFacts = Readonly<Record<string, string | number | boolean>>;

/** Something that takes time and is traced. */
export interface Span {
  /**
   * Ends it, once; what comes later is ignored.
   * @param facts - what is known only now.
   * @param error - why it failed; absent when it did not.
   */
  end(facts?: SpanFacts, error?: unknown): void;
}

/** Where spans go, when the host traces. Nothing here throws. */
export interface Tracing {
  /**
   * Starts the span `inlay.run` of one call, a child of the span that is active at that moment.
   * @returns `undefined` when nobody records it, so that an untraced call costs next to nothing.
   */
  startCall(facts: SpanFacts): Span | undefined;
  /**
   * Starts the span `inlay.batch` of one batch: a child of its first call, with links to all of its calls.
   * @param calls - spans of {@link startCall}.
   * @returns `undefined` when there are no calls to link or nobody records it.
   */
  startBatch(calls: readonly Span[], facts: SpanFacts): Span | undefined;
}
