/** Traces calls and batches through OpenTelemetry, wherever the host has it. */
import type { Span, Tracing } from './core/tracing.ts';

/** The part of the module `@opentelemetry/api`, from version 1.9, that is used. */
export interface OpenTelemetryApi {
  readonly context: { active(): OpenTelemetryContext };
  readonly trace: {
    getTracer(name: string): OpenTelemetryTracer;
    setSpan(context: OpenTelemetryContext, span: OpenTelemetrySpan): OpenTelemetryContext;
  };
  readonly SpanStatusCode: { readonly ERROR: number };
}

/** `Context`: what is active where code runs. */
export interface OpenTelemetryContext {
  getValue(key: symbol): unknown;
  setValue(key: symbol, value: unknown): OpenTelemetryContext;
  deleteValue(key: symbol): OpenTelemetryContext;
}

/** The part of `Tracer` that is used. */
export interface OpenTelemetryTracer {
  startSpan(
    name: string,
    options: OpenTelemetrySpanOptions,
    context: OpenTelemetryContext,
  ): OpenTelemetrySpan;
}

/** The part of `SpanOptions` that is used. */
export interface OpenTelemetrySpanOptions {
  attributes?: Record<string, string | number | boolean>;
  links?: { context: OpenTelemetrySpanContext }[];
}

/** The part of `Span` that is used. */
export interface OpenTelemetrySpan {
  isRecording(): boolean;
  spanContext(): OpenTelemetrySpanContext;
  setAttributes(attributes: Record<string, string | number | boolean>): unknown;
  setStatus(status: { code: number; message?: string }): unknown;
  recordException(exception: Error | string): void;
  end(): void;
}

/** The part of `SpanContext` that is used. */
export interface OpenTelemetrySpanContext {
  readonly traceId: string;
  readonly spanId: string;
  readonly traceFlags: number;
}

/**
 * Creates spans with the tracer `inlay` of the host's OpenTelemetry; a tracer provider that is registered later is
 * found as well. A call is a child of the span that is active when it is made, so that W3C trace context from outside
 * is the business of the host's instrumentation or of its `propagation.extract`.
 *
 * @param api - the module `@opentelemetry/api`.
 * @example
 * const tracing = createTracing(await import('@opentelemetry/api'));
 */
export function createTracing({ context, trace, SpanStatusCode }: OpenTelemetryApi): Tracing {
  const tracer = trace.getTracer('inlay');
  const spans = new WeakMap<Span, OpenTelemetrySpan>();

  const start = (
    name: string,
    options: OpenTelemetrySpanOptions,
    parent: OpenTelemetryContext,
  ): Span | undefined => {
    const span = tracer.startSpan(name, options, parent);
    if (!span.isRecording()) return undefined;
    const started: Span = {
      end: (facts, error) => {
        if (facts !== undefined) span.setAttributes(facts);
        if (error !== undefined) fail(span, error);
        span.end();
      },
    };
    spans.set(started, span);
    return started;
  };

  const fail = (span: OpenTelemetrySpan, error: unknown): void => {
    const { message } = error instanceof Error ? error : { message: String(error) };
    span.setAttributes({ 'error.type': typeOf(error) });
    span.recordException(error instanceof Error ? error : message);
    span.setStatus({ code: SpanStatusCode.ERROR, message });
  };

  return {
    startCall: (facts) => start('inlay.run', { attributes: facts }, context.active()),
    startBatch: (calls, facts) => {
      const members = calls.flatMap((call) => spans.get(call) ?? []);
      const [first] = members;
      if (first === undefined) return undefined;
      const links = members.map((member) => ({ context: member.spanContext() }));
      return start('inlay.batch', { attributes: facts, links }, trace.setSpan(context.active(), first));
    },
  };
}

/** Attribute `error.type` of the semantic conventions: a code where there is one, since it is stable. */
function typeOf(error: unknown): string {
  if (!(error instanceof Error)) return typeof error;
  return 'code' in error && typeof error.code === 'string' ? error.code : error.name;
}
