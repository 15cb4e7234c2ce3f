import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createLine, type Line, type Standing } from '../../../src/schedule/line.ts';
import { seededRandom } from './virtual.ts';

interface Item extends Standing {
  readonly id: number;
}

const newItem = (id: number, urgency: number): Item => ({ id, urgency, isWaiting: false, order: 0 });

/** The line as one would write it without a thought for its speed. */
function createModel(): { items: Item[]; push(item: Item): void; remove(item: Item): void } {
  const model = {
    items: [] as Item[],
    push: (item: Item): void => {
      const at = model.items.findIndex(({ urgency }) => urgency > item.urgency);
      model.items.splice(at === -1 ? model.items.length : at, 0, item);
    },
    remove: (item: Item): void => {
      model.items = model.items.filter((other) => other !== item);
    },
  };
  return model;
}

/** Counts how often the line looks at an item. */
function countLooks(): { looks: number; item(urgency: number): Standing } {
  const counter = {
    looks: 0,
    item: (urgency: number): Standing => {
      let isWaiting = false;
      return {
        get urgency() {
          counter.looks += 1;
          return urgency;
        },
        get isWaiting() {
          counter.looks += 1;
          return isWaiting;
        },
        set isWaiting(value) {
          isWaiting = value;
        },
        order: 0,
      };
    },
  };
  return counter;
}

describe('waiting line', () => {
  it('serves the most urgent first and equals in the order in which they came', () => {
    const command = fc.oneof(
      {
        weight: 5,
        arbitrary: fc.record({ do: fc.constant('push' as const), urgency: fc.integer({ min: 0, max: 9 }) }),
      },
      { weight: 3, arbitrary: fc.record({ do: fc.constant('shift' as const) }) },
      { weight: 3, arbitrary: fc.record({ do: fc.constant('remove' as const), pick: fc.nat() }) },
    );
    fc.assert(
      fc.property(fc.array(command, { maxLength: 300, size: 'max' }), (commands) => {
        const line = createLine<Item>();
        const model = createModel();
        const gone: Item[] = [];
        let id = 0;
        for (const step of commands) {
          if (step.do === 'push') {
            const item = newItem((id += 1), step.urgency);
            line.push(item);
            model.push(item);
          } else if (step.do === 'shift') {
            const item = line.shift();
            expect(item).toBe(model.items.shift());
            if (item !== undefined) gone.push(item);
          } else if (model.items.length > 0) {
            const item = model.items[step.pick % model.items.length] as Item;
            line.remove(item);
            model.remove(item);
            gone.push(item);
          }
          expect(line.length).toBe(model.items.length);
          expect(line.first()).toBe(model.items[0]);
        }
        const seen: Item[] = [];
        line.each((item) => seen.push(item));
        expect(new Set(seen)).toEqual(new Set(model.items));
        expect(seen.length).toBe(model.items.length);
        expect(model.items.every(({ isWaiting }) => isWaiting)).toBe(true);
        expect(gone.every(({ isWaiting }) => !isWaiting)).toBe(true);
      }),
      { numRuns: 400 },
    );
  });

  it('tells exactly how many go before an item while nobody has left out of turn', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 20 }), { maxLength: 100 }),
        fc.integer({ min: -1, max: 21 }),
        (urgencies, urgency) => {
          const line = createLine<Item>();
          urgencies.forEach((each, id) => line.push(newItem(id, each)));
          expect(line.ahead(urgency)).toBe(urgencies.filter((each) => each <= urgency).length);
        },
      ),
    );
  });

  it('never tells of more before an item than wait at all', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 0, max: 20 }), fc.boolean()), { maxLength: 600, size: 'max' }),
        (all) => {
          const line = createLine<Item>();
          const items = all.map(([urgency], id) => newItem(id, urgency));
          for (const item of items) line.push(item);
          items.forEach((item, at) => all[at]?.[1] && line.remove(item));
          for (let urgency = 0; urgency <= 20; urgency += 1) {
            const exact = items.filter((item) => item.isWaiting && item.urgency <= urgency).length;
            expect(line.ahead(urgency)).toBeGreaterThanOrEqual(exact);
            expect(line.ahead(urgency)).toBeLessThanOrEqual(line.length);
          }
        },
      ),
    );
  });

  it('ignores the removal of what has left already', () => {
    const line = createLine<Item>();
    const [first, second] = [newItem(1, 0), newItem(2, 0)];
    line.push(first);
    line.push(second);
    line.shift();
    line.remove(first);
    line.remove(first);
    expect(line.length).toBe(1);
    expect(line.shift()).toBe(second);
    expect(line.shift()).toBeUndefined();
  });

  it.each([
    { what: 'in order', urgency: (at: number) => at },
    { what: 'in reverse', urgency: (at: number) => -at },
  ])('forgets what left while the first one stays, pushed $what', ({ urgency }) => {
    const counter = countLooks();
    const line: Line<Standing> = createLine();
    const stays = counter.item(-Infinity);
    line.push(stays);
    for (let at = 0; at < 10_000; at += 1) {
      const item = counter.item(urgency(at));
      line.push(item);
      line.remove(item);
    }
    counter.looks = 0;
    let waiting = 0;
    line.each(() => (waiting += 1));
    expect(waiting).toBe(1);
    // What it looks at is what it still holds.
    expect(counter.looks).toBeLessThan(200);
  });

  it.each([
    { what: 'in order', urgency: (at: number) => at, orders: 1 },
    { what: 'in reverse', urgency: (at: number) => -at, orders: Math.log2(100_000) },
    { what: 'at random', urgency: (_: number, random: number) => random, orders: Math.log2(100_000) },
  ])('takes 100,000 items $what, loses half and serves the rest in few steps each', ({ urgency, orders }) => {
    const counter = countLooks();
    const random = seededRandom(1);
    const line: Line<Standing> = createLine();
    const items = Array.from({ length: 100_000 }, (_, at) => counter.item(urgency(at, random())));
    for (const item of items) line.push(item);
    for (const item of items) if (random() < 0.5) line.remove(item);
    while (line.first() !== undefined) line.shift();
    expect(counter.looks / items.length).toBeLessThan(20 + 10 * orders);
  });
});
