import { describe, expect, it } from 'vitest';
import type { Model } from '../../src/engine/model.ts';
import { createRunner } from '../../src/react/runner.ts';

describe('feeds that wait for a model', () => {
  /** Models that never answer, and what they were asked. */
  const start = () => {
    const asked: string[] = [];
    const model = (name: string): Model => {
      const run = (feeds: object): Promise<never> => {
        asked.push(`${name}${JSON.stringify(feeds)}`);
        return new Promise(() => {});
      };
      return { run } as Partial<Model> as Model;
    };
    return { asked, model, runner: createRunner() };
  };

  it('go with the model that they were meant for', () => {
    const { asked, model, runner } = start();
    const detach = runner.attach(model('A'));
    runner.run({ x: [1] }, undefined, 'finish');
    runner.run({ x: [2] }, undefined, 'finish');
    detach();
    runner.attach(model('B'));
    expect(asked).toEqual(['A{"x":[1]}']);
    expect(runner.state().isRunning).toBe(false);
  });

  it('stay for the first model, however often there is none', () => {
    const { asked, model, runner } = start();
    runner.attach(undefined)();
    const detach = runner.attach(undefined);
    runner.run({ x: [1] }, undefined, 'finish');
    detach();
    runner.attach(model('A'));
    expect(asked).toEqual(['A{"x":[1]}']);
  });
});

describe('outputs', () => {
  it('go with the model that gave them, and stay when it comes back', async () => {
    const model = (value: number): Model =>
      ({ run: async () => ({ y: value }) }) as unknown as Partial<Model> as Model;
    const [a, b] = [model(1), model(2)];
    const runner = createRunner();
    const detach = runner.attach(a);
    runner.run({ x: [1] }, undefined, 'finish');
    await expect.poll(() => runner.state().outputs).toEqual({ y: 1 });
    detach();
    const again = runner.attach(a);
    expect(runner.state().outputs).toEqual({ y: 1 });
    again();
    runner.attach(undefined)();
    runner.attach(b);
    expect(runner.state()).toEqual({ outputs: undefined, error: undefined, isRunning: false });
  });
});
