import { afterEach, expect, it, vi } from 'vitest';
import { spawnWebWorker } from '../../src/workers/web.ts';

/** Workers whose script is not there. */
class MissingWorker extends EventTarget {
  static made: MissingWorker[] = [];
  isEnded = false;
  constructor() {
    super();
    MissingWorker.made.push(this);
    queueMicrotask(() => this.dispatchEvent(new Event('error', { cancelable: true })));
  }
  postMessage(): void {}
  terminate(): void {
    this.isEnded = true;
  }
}

afterEach(() => {
  vi.unstubAllGlobals();
  MissingWorker.made = [];
});

const url = 'data:text/html,nothing';

it('a start that fails is told with the address of its script, and the worker is made once', async () => {
  vi.stubGlobal('Worker', MissingWorker);
  const { ended } = spawnWebWorker({ worker: () => new Worker(url) });
  expect(globalThis.Worker).toBe(MissingWorker);
  const { reason, cause } = await ended;
  expect(reason).toBe('unstarted');
  expect(String(cause)).toContain(`the script is ${url}, which is served as text/html`);
  expect(MissingWorker.made).toMatchObject([{ isEnded: true }]);
});

it('a start that fails leaves no worker of a constructor that was taken earlier', async () => {
  vi.stubGlobal('Worker', MissingWorker);
  const Taken = globalThis.Worker;
  const { ended } = spawnWebWorker({ worker: () => new Taken(url) });
  expect(await ended).toMatchObject({ reason: 'unstarted' });
  expect(MissingWorker.made).toMatchObject([{ isEnded: true }]);
});

it('a constructor that throws is heard, and the global one is put back', () => {
  const broken = function (): never {
    throw new DOMException('Another origin.', 'SecurityError');
  };
  vi.stubGlobal('Worker', broken);
  expect(() => spawnWebWorker({ worker: () => new Worker(url) })).toThrow('Another origin.');
  expect(globalThis.Worker).toBe(broken);
});
