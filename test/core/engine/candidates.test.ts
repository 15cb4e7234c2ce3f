import { describe, expect, it } from 'vitest';
import type { Backend, ExecutionProvider, TensorMap } from '../../../src/core/backend.ts';
import { BackendError, ModelError, type ErrorCode } from '../../../src/core/errors.ts';
import { Tensor } from '../../../src/core/tensor.ts';
import { openSession, type DevicePreference, type OpenedSession } from '../../../src/engine/candidates.ts';
import { fakeBackend, manualClock, type FakeBackendOptions } from './fakes.ts';

type BackendCode = ErrorCode<'BackendError'>;
const source = { bytes: new Uint8Array() };
const providers: ExecutionProvider[] = [
  { name: 'cuda', device: 'gpu', refusal: 'libonnxruntime_providers_cuda.so is missing' },
  { name: 'webgpu', device: 'gpu' },
  { name: 'cpu', device: 'cpu' },
];
const y = (feeds: TensorMap): TensorMap => ({ y: feeds['x'] as TensorMap[string] });

async function open(
  device: DevicePreference,
  options: FakeBackendOptions = {},
): Promise<OpenedSession & { opened: number }> {
  const backend = fakeBackend({ providers, ...options });
  const result = await openSession(manualClock(), [backend], source, device);
  return { ...result, opened: backend.open.size };
}

/** Makes runs on one provider take the given time. */
function paced(
  ms: Record<string, number>,
  change = (outputs: TensorMap): TensorMap => outputs,
): {
  readonly clock: ReturnType<typeof manualClock>;
  readonly onRun: (feeds: TensorMap, provider: string) => TensorMap;
} {
  const clock = manualClock();
  return {
    clock,
    onRun: (feeds, provider) => {
      clock.advance(ms[provider] ?? 0);
      return provider === 'cpu' ? y(feeds) : change(y(feeds));
    },
  };
}

describe('openSession', () => {
  it('takes the CPU for `cpu` without trying anything else', async () => {
    const { session, attempts } = await open('cpu');
    expect(session.provider).toBe('cpu');
    expect(attempts).toHaveLength(1);
  });

  it('tries names one by one, in order, and keeps each refusal with its reason', async () => {
    const { session, attempts, opened } = await open(['tensorrt', 'cuda', 'webgpu', 'cpu'], {
      onCreate: (provider) => {
        if (provider === 'webgpu') throw new BackendError('ERR_INLAY_DEVICE_UNAVAILABLE', 'No adapter.');
      },
    });
    expect(session.provider).toBe('cpu');
    expect(attempts.map(({ provider, outcome, reason }) => [provider, outcome, reason])).toEqual([
      ['tensorrt', 'refused', 'no installed backend offers it; there is cuda, webgpu, cpu'],
      ['cuda', 'refused', 'libonnxruntime_providers_cuda.so is missing'],
      ['webgpu', 'refused', 'No adapter.'],
      ['cpu', 'chosen', undefined],
    ]);
    expect(opened).toBe(1);
  });

  it('refuses a provider that fails at its first run, and releases its session', async () => {
    const { session, opened } = await open(['webgpu', 'cpu'], {
      onRun: (feeds, provider) => {
        if (provider === 'webgpu') throw new BackendError('ERR_INLAY_RUN_FAILED', 'f16 is not supported.');
        return y(feeds);
      },
    });
    expect(session.provider).toBe('cpu');
    expect(opened).toBe(1);
  });

  it('never falls back to the CPU for `gpu`, and lists every refusal', async () => {
    const failing = open('gpu', {
      onCreate: () => {
        throw new BackendError('ERR_INLAY_DEVICE_UNAVAILABLE', 'No adapter.');
      },
    });
    await expect(failing).rejects.toMatchObject({
      code: 'ERR_INLAY_DEVICE_UNAVAILABLE',
      message: expect.stringMatching(/cuda: .*missing; webgpu: No adapter/) as string,
    });
  });

  it.each([
    ['the worker of the CPU does not start', { cpu: 'ERR_INLAY_BACKEND_UNAVAILABLE' }],
    ['only that of a GPU does not', { webgpu: 'ERR_INLAY_BACKEND_UNAVAILABLE' }],
  ] as const)('says so when %s, with the list of refusals', async (_, codes: Record<string, BackendCode>) => {
    const failing = open('auto', {
      onCreate: (provider) => {
        const code = codes[provider] ?? 'ERR_INLAY_DEVICE_UNAVAILABLE';
        throw new BackendError(code, `No ${provider}.`);
      },
    });
    await expect(failing).rejects.toMatchObject({
      name: 'BackendError',
      code: codes['cpu'] ?? 'ERR_INLAY_DEVICE_UNAVAILABLE',
      message: expect.stringMatching(/"auto": cpu: No cpu; cuda: .*missing; webgpu: No webgpu\.$/) as string,
      details: { attempts: [{ provider: 'cpu' }, { provider: 'cuda' }, { provider: 'webgpu' }] },
      cause: expect.objectContaining({ message: 'No cpu.' }) as Error,
    });
  });

  it('says that a library does not load, also when another one is missing', async () => {
    const failing = (code: BackendCode): Backend =>
      fakeBackend({ name: code, providers: new BackendError(code, 'It is not there.') });
    const [missing, broken] = [
      failing('ERR_INLAY_BACKEND_MISSING'),
      failing('ERR_INLAY_BACKEND_UNAVAILABLE'),
    ];
    const codeOf = (...backends: Backend[]): Promise<unknown> =>
      openSession(manualClock(), backends, source, 'auto').catch(({ code }: BackendError) => code);
    expect(await codeOf(missing, broken)).toBe('ERR_INLAY_BACKEND_UNAVAILABLE');
    expect(await codeOf(broken)).toBe('ERR_INLAY_BACKEND_UNAVAILABLE');
    expect(await codeOf(missing, missing)).toBe('ERR_INLAY_BACKEND_MISSING');
    expect(await codeOf()).toBe('ERR_INLAY_DEVICE_UNAVAILABLE');
  });

  it.each([
    ['webgpu', { cpu: 10, webgpu: 2 }],
    ['cpu', { cpu: 2, webgpu: 10 }],
  ])('takes %s for `auto` when it is measured faster', async (winner, ms) => {
    const { clock, onRun } = paced(ms);
    const backend = fakeBackend({ providers, onRun });
    const { session, attempts } = await openSession(clock, [backend], source, 'auto');
    expect(session.provider).toBe(winner);
    expect(backend.open.size).toBe(1);
    expect(attempts.find(({ outcome }) => outcome === 'slower')).toMatchObject({
      reason: `${winner} is faster`,
      runMs: 10,
    });
  });

  it('refuses a faster GPU whose answers differ', async () => {
    const { clock, onRun } = paced({ cpu: 10, webgpu: 1 }, () => ({
      y: new Tensor('float32', [1, 2], new Float32Array([1, 1])),
    }));
    const backend = fakeBackend({ providers, onRun });
    const { session, attempts } = await openSession(clock, [backend], source, 'auto');
    expect(session.provider).toBe('cpu');
    expect(attempts.find(({ provider }) => provider === 'webgpu')).toMatchObject({
      outcome: 'refused',
      reason: 'its outputs differ from those of cpu: output "y" differs at element 0 by 1.0',
    });
    expect(backend.open.size).toBe(1);
  });

  it('knows cpu and gpu in a list, too, and says what there is otherwise', async () => {
    const webgpu: ExecutionProvider = { name: 'webgpu', device: 'gpu' };
    const wasm: ExecutionProvider = { name: 'wasm', device: 'cpu' };
    const chosen = async (device: DevicePreference, ...offered: ExecutionProvider[]): Promise<string> => {
      const { session } = await openSession(
        manualClock(),
        [fakeBackend({ providers: offered })],
        source,
        device,
      );
      return session.provider;
    };
    expect(await chosen(['cuda', 'cpu'], webgpu, wasm)).toBe('wasm');
    expect(await chosen(['gpu', 'cpu'], webgpu, wasm)).toBe('webgpu');
    expect(await chosen(['gpu', 'cpu'], wasm)).toBe('wasm');
    await expect(chosen(['cuda'], webgpu, wasm)).rejects.toThrow(
      'cuda: no installed backend offers it; there is webgpu, wasm',
    );
  });

  it('keeps the CPU when a GPU calls a model broken that the CPU has opened', async () => {
    const { session, attempts, opened } = await open('auto', {
      onCreate: (provider) => {
        if (provider === 'webgpu') throw new ModelError('ERR_INLAY_MODEL_INVALID', 'Type error.');
      },
    });
    expect(session.provider).toBe('cpu');
    expect(attempts).toContainEqual(
      expect.objectContaining({ provider: 'webgpu', outcome: 'refused', reason: 'Type error.' }),
    );
    expect(opened).toBe(1);
  });

  it('does not try other candidates with a model that is missing or broken', async () => {
    let tries = 0;
    const failing = open(['webgpu', 'cpu'], {
      onCreate: () => {
        tries += 1;
        throw new ModelError('ERR_INLAY_MODEL_INVALID', 'Not ONNX.');
      },
    });
    await expect(failing).rejects.toMatchObject({ code: 'ERR_INLAY_MODEL_INVALID' });
    expect(tries).toBe(1);
  });

  it('goes on to the next library when one is missing, and says so', async () => {
    const missing = fakeBackend({
      name: 'onnxruntime-node',
      providers: new BackendError('ERR_INLAY_BACKEND_MISSING', 'Run npm install onnxruntime-node.'),
    });
    const { backend, attempts } = await openSession(manualClock(), [missing, fakeBackend()], source, 'auto');
    expect(backend).toBe('fake');
    expect(attempts[0]).toEqual({
      backend: 'onnxruntime-node',
      outcome: 'refused',
      reason: 'Run npm install onnxruntime-node.',
    });
  });

  it('names the install command when no library is there', async () => {
    const missing = fakeBackend({
      providers: new BackendError('ERR_INLAY_BACKEND_MISSING', 'Run npm install onnxruntime-node.'),
    });
    await expect(openSession(manualClock(), [missing], source, 'auto')).rejects.toMatchObject({
      code: 'ERR_INLAY_BACKEND_MISSING',
      message: expect.stringContaining('npm install onnxruntime-node') as string,
    });
  });
});
