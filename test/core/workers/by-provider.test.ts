import { describe, expect, it } from 'vitest';
import type { Backend, ExecutionProvider, Session } from '../../../src/core/backend.ts';
import { BackendError } from '../../../src/core/errors.ts';
import { joinByProvider, type ProviderMember } from '../../../src/workers/by-provider.ts';
import { errorOf } from '../../conformance/backend.ts';

const gpu: ExecutionProvider = { name: 'webgpu', device: 'gpu' };
const cpu: ExecutionProvider = { name: 'wasm', device: 'cpu' };
const broken = new BackendError('ERR_INLAY_BACKEND_UNAVAILABLE', 'The script is missing.');

/** A backend of one provider that counts what it is asked for. */
function createFake(provider: ExecutionProvider, error?: Error) {
  const asked = { providers: 0, sessions: 0, closed: 0 };
  const backend: Backend = {
    name: 'fake',
    providers: () => {
      asked.providers += 1;
      return error === undefined ? Promise.resolve([provider]) : Promise.reject(error);
    },
    createSession: (_, options) => {
      asked.sessions += 1;
      return Promise.resolve({ provider: options.provider } as Session);
    },
    close: async () => {
      asked.closed += 1;
    },
  };
  return { asked, backend, provider } satisfies ProviderMember & { asked: object };
}

describe('joinByProvider', () => {
  const open = (backend: Backend, provider: string): Promise<Session> =>
    backend.createSession({ bytes: new Uint8Array() }, { provider });

  it('lists the providers of all, with what each says of its own, in their order', async () => {
    const first = createFake({ ...gpu, features: ['shader-f16'] });
    const joined = joinByProvider('both', [{ ...first, provider: gpu }, createFake(cpu)]);
    expect(joined.name).toBe('both');
    expect(await joined.providers()).toEqual([{ ...gpu, features: ['shader-f16'] }, cpu]);
  });

  it('opens a session where its provider is', async () => {
    const [first, second] = [createFake(gpu), createFake(cpu)];
    const joined = joinByProvider('both', [first, second]);
    expect((await open(joined, 'wasm')).provider).toBe('wasm');
    expect([first.asked.sessions, second.asked.sessions]).toEqual([0, 1]);
  });

  it('does not start a backend that a probe answers for', async () => {
    const first = createFake(gpu);
    const probe = () => Promise.resolve({ ...gpu, refusal: 'there is no adapter' });
    const joined = joinByProvider('both', [{ ...first, probe }, createFake(cpu)]);
    expect(await joined.providers()).toEqual([{ ...gpu, refusal: 'there is no adapter' }, cpu]);
    expect(first.asked.providers).toBe(0);
  });

  it('lists one that does not start with the reason', async () => {
    const joined = joinByProvider('both', [createFake(gpu, broken), createFake(cpu)]);
    expect(await joined.providers()).toEqual([{ ...gpu, refusal: 'The script is missing.' }, cpu]);
  });

  it('fails like the last one that fails where none can be used', async () => {
    const refused: ProviderMember = { provider: { ...gpu, refusal: 'there is none' } };
    const joined = joinByProvider('both', [refused, createFake(cpu, broken)]);
    expect(await errorOf(joined.providers())).toBe(broken);
  });

  it('refuses a provider that it does not have, or not here', async () => {
    const refused: ProviderMember = { provider: { ...gpu, refusal: 'there is none' } };
    const joined = joinByProvider('both', [refused, createFake(cpu)]);
    for (const [provider, reason] of [
      ['webgpu', 'there is none'],
      ['cuda', 'both does not offer it'],
    ] as const) {
      expect(await errorOf(open(joined, provider))).toMatchObject({
        code: 'ERR_INLAY_DEVICE_UNAVAILABLE',
        message: expect.stringContaining(reason),
      });
    }
  });

  it('closes all', async () => {
    const [first, second] = [createFake(gpu), createFake(cpu)];
    await joinByProvider('both', [first, second]).close();
    expect([first.asked.closed, second.asked.closed]).toEqual([1, 1]);
  });
});
