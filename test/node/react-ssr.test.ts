import { createElement as h, Suspense, type ReactNode } from 'react';
import { renderToReadableStream, renderToString } from 'react-dom/server';
import { describe, expect, it, vi } from 'vitest';
import { createInlay, type Backend } from '../../src/index.ts';
import { InlayProvider, useModel, useModelSuspense, useRun } from '../../src/react.ts';

const backend: Backend = {
  name: 'untouched',
  providers: vi.fn(),
  createSession: vi.fn(),
  close: vi.fn(async () => {}),
};
const inlay = createInlay({ backends: [backend] });
const provide = (...children: ReactNode[]): ReactNode => h(InlayProvider, { inlay }, ...children);

function Status(): string {
  const { status, model } = useModel('/digits.onnx');
  const { outputs, isRunning } = useRun(model);
  return `${status} ${outputs === undefined} ${isRunning}`;
}

function Version(): string {
  return String(useModelSuspense('/digits.onnx').version);
}

function expectUntouched(): void {
  expect(backend.providers).not.toHaveBeenCalled();
  expect(backend.createSession).not.toHaveBeenCalled();
  expect(inlay.info().models).toEqual([]);
}

describe('on a server', () => {
  it('a model is loading, and nothing is touched', () => {
    const load = vi.spyOn(inlay, 'load');
    expect(renderToString(provide(h(Status)))).toBe('loading true false');
    expect(load).not.toHaveBeenCalled();
    expectUntouched();
  });

  it('a boundary gives its fallback', () => {
    const html = renderToString(provide(h(Suspense, { fallback: 'waiting' }, h(Version)), h(Status)));
    expect(html).toContain('waiting');
    expect(html).toContain('loading true false');
    expectUntouched();
  });

  it('a stream ends with the fallback instead of waiting for ever', async () => {
    const errors: unknown[] = [];
    const stream = await renderToReadableStream(provide(h(Suspense, { fallback: 'waiting' }, h(Version))), {
      onError: (error) => void errors.push(error),
    });
    expect(await new Response(stream).text()).toContain('waiting');
    expect(errors).toEqual([expect.objectContaining({ code: 'ERR_INLAY_MODEL_UNAVAILABLE' })]);
    expectUntouched();
  });

  it('without a boundary, the error says what to do', () => {
    expect(() => renderToString(provide(h(Version)))).toThrow(/put a Suspense boundary around/);
  });

  it('without an Inlay, the error says what to do', () => {
    expect(() => renderToString(h(Status))).toThrow(/put an InlayProvider around/);
  });
});
