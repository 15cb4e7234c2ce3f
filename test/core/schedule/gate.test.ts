import { describe, expect, it } from 'vitest';
import { createGate } from '../../../src/schedule/gate.ts';

describe('linger gate', () => {
  it('gives waiting a try', () => {
    expect(createGate().open()).toBe(true);
  });

  it('stays open while cohorts come back', () => {
    const gate = createGate();
    for (let i = 0; i < 100; i += 1) {
      gate.learn(true);
      expect(gate.open()).toBe(true);
    }
  });

  it('closes after failures, but for one time in 64', () => {
    const gate = createGate();
    for (let i = 0; i < 10; i += 1) gate.learn(false);
    const opened = Array.from({ length: 640 }, () => gate.open()).filter(Boolean);
    expect(opened.length).toBe(10);
  });

  it('opens again when its probes succeed', () => {
    const gate = createGate();
    for (let i = 0; i < 50; i += 1) gate.learn(false);
    let asked = 0;
    for (; asked < 640; asked += 1) if (gate.open()) gate.learn(true);
    expect(gate.open()).toBe(true);
    expect(gate.open()).toBe(true);
  });
});
