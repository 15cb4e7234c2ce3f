import * as api from '@opentelemetry/api';
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks';
import {
  AlwaysOffSampler,
  AlwaysOnSampler,
  BasicTracerProvider,
  InMemorySpanExporter,
  ParentBasedSampler,
  SimpleSpanProcessor,
  type ReadableSpan,
  type Sampler,
} from '@opentelemetry/sdk-trace-base';
import { afterEach, describe, expect, it } from 'vitest';
import { BackendError } from '../../src/core/errors.ts';
import type { Span } from '../../src/core/tracing.ts';
import { createTracing } from '../../src/opentelemetry.ts';

/** Registers a real SDK. @returns spans that ended, in that order. */
function record(sampler: Sampler = new AlwaysOnSampler()): () => readonly ReadableSpan[] {
  const exporter = new InMemorySpanExporter();
  const spanProcessors = [new SimpleSpanProcessor(exporter)];
  const provider = new BasicTracerProvider({
    sampler: new ParentBasedSampler({ root: sampler }),
    spanProcessors,
  });
  api.trace.setGlobalTracerProvider(provider);
  api.context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  return () => exporter.getFinishedSpans();
}

afterEach(() => {
  api.trace.disable();
  api.context.disable();
});

function recorded(span: Span | undefined): Span {
  if (span === undefined) throw new Error('The span is not recorded.');
  return span;
}

function only(spans: readonly ReadableSpan[]): ReadableSpan {
  expect(spans).toHaveLength(1);
  return spans[0] as ReadableSpan;
}

describe('tracing through OpenTelemetry', () => {
  it('gives each call a span with what is known when it starts and when it ends', () => {
    const spans = record();
    const call = createTracing(api).startCall({ 'inlay.model': 'digits', 'inlay.version': '1.0.0' });
    recorded(call).end({ 'inlay.batch.size': 8, 'inlay.queue_ms': 0.5 });
    const span = only(spans());
    expect(span.name).toBe('inlay.run');
    expect(span.kind).toBe(api.SpanKind.INTERNAL);
    expect(span.instrumentationScope.name).toBe('inlay');
    expect(span.parentSpanContext).toBeUndefined();
    expect(span.status.code).toBe(api.SpanStatusCode.UNSET);
    expect(span.attributes).toEqual({
      'inlay.model': 'digits',
      'inlay.version': '1.0.0',
      'inlay.batch.size': 8,
      'inlay.queue_ms': 0.5,
    });
  });

  it('makes a call the child of the span that was active when it was made', async () => {
    const spans = record();
    const tracing = createTracing(api);
    const traceId = await api.trace.getTracer('host').startActiveSpan('request', async (request) => {
      await Promise.resolve();
      const call = tracing.startCall({});
      request.end();
      await Promise.resolve();
      recorded(call).end();
      return request.spanContext().traceId;
    });
    const [request, call] = spans();
    expect(call?.parentSpanContext?.spanId).toBe(request?.spanContext().spanId);
    expect(call?.spanContext().traceId).toBe(traceId);
  });

  it('goes on with a trace that came from outside', () => {
    const spans = record();
    const traceparent = { traceId: '0af7651916cd43dd8448eb211c80319c', spanId: 'b7ad6b7169203331' };
    const remote = { ...traceparent, traceFlags: api.TraceFlags.SAMPLED, isRemote: true };
    const tracing = createTracing(api);
    api.context.with(api.trace.setSpanContext(api.ROOT_CONTEXT, remote), () => {
      recorded(tracing.startCall({})).end();
    });
    expect(only(spans()).parentSpanContext).toMatchObject(traceparent);
  });

  it('links a batch with all of its calls and puts it under the first one', () => {
    const spans = record();
    const tracing = createTracing(api);
    const calls = ['a', 'b', 'c'].map((name) =>
      api.trace.getTracer('host').startActiveSpan(name, (request) => {
        const call = recorded(tracing.startCall({ name }));
        request.end();
        return call;
      }),
    );
    const batch = recorded(tracing.startBatch(calls, { 'inlay.batch.size': 3 }));
    for (const call of calls) call.end();
    batch.end({ 'inlay.compute_ms': 4 });
    const runs = spans().filter(({ name }) => name === 'inlay.run');
    const span = only(spans().filter(({ name }) => name === 'inlay.batch'));
    expect(span.links.map(({ context }) => context.spanId)).toEqual(
      runs.map((run) => run.spanContext().spanId),
    );
    expect(new Set(span.links.map(({ context }) => context.traceId)).size).toBe(3);
    expect(span.parentSpanContext?.spanId).toBe(runs[0]?.spanContext().spanId);
    expect(span.attributes).toEqual({ 'inlay.batch.size': 3, 'inlay.compute_ms': 4 });
  });

  it('has no span for a batch of which no call is traced', () => {
    const spans = record();
    const tracing = createTracing(api);
    expect(tracing.startBatch([], {})).toBeUndefined();
    expect(tracing.startBatch([{ end: () => {} }], {})).toBeUndefined();
    expect(spans()).toEqual([]);
  });

  it('marks what failed, with the error and its code', () => {
    const spans = record();
    const error = new BackendError('ERR_INLAY_RUN_FAILED', 'The run failed; see the cause.');
    recorded(createTracing(api).startCall({})).end({}, error);
    const span = only(spans());
    expect(span.status).toEqual({ code: api.SpanStatusCode.ERROR, message: error.message });
    expect(span.attributes).toEqual({ 'error.type': 'ERR_INLAY_RUN_FAILED' });
    expect(span.events).toMatchObject([
      { name: 'exception', attributes: { 'exception.message': error.message } },
    ]);
  });

  it('marks what was given up, whatever the reason is', () => {
    const spans = record();
    const tracing = createTracing(api);
    for (const reason of [AbortSignal.abort().reason, 'no longer needed', new TypeError('no'), null]) {
      recorded(tracing.startCall({})).end({}, reason);
    }
    expect(spans().map(({ attributes }) => attributes['error.type'])).toEqual([
      'AbortError',
      'string',
      'TypeError',
      'object',
    ]);
    for (const { status, events } of spans()) {
      expect(status.code).toBe(api.SpanStatusCode.ERROR);
      expect(events).toHaveLength(1);
    }
  });

  it('gives no span when nobody records', () => {
    const tracing = createTracing(api);
    expect(tracing.startCall({})).toBeUndefined();
    const spans = record(new AlwaysOffSampler());
    expect(tracing.startCall({})).toBeUndefined();
    expect(spans()).toEqual([]);
  });

  it('finds a provider that is registered after it was created', () => {
    const tracing = createTracing(api);
    expect(tracing.startCall({})).toBeUndefined();
    const spans = record();
    recorded(tracing.startCall({})).end();
    only(spans());
  });

  it('records the end of a span once', () => {
    const spans = record();
    const call = recorded(createTracing(api).startCall({}));
    call.end();
    call.end({ late: true });
    expect(only(spans()).attributes).toEqual({});
  });
});
