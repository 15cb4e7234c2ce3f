/** The places in a feature's vector of counts: one per bin or category, then null, then out of range. */

import type { FeatureValue } from './feature-reading.ts';
import type { CategoryFeature, NumericFeature } from './profile.ts';

/** Where values of one feature are counted. */
export interface Slots {
  /** Length of the vector. */
  readonly length: number;
  slotOf(value: FeatureValue): number;
}

/** The slots of a feature: by edges, `edges[i] < x ≤ edges[i + 1]`, or by category. */
export function slotsOf(feature: NumericFeature | CategoryFeature): Slots {
  return feature.type === 'number' ? numericSlots(feature.edges) : categorySlots(feature.values);
}

function numericSlots(edges: readonly number[]): Slots {
  const bins = edges.length - 1;
  const lowest = edges[0] as number;
  const highest = edges[bins] as number;
  return {
    length: bins + 2,
    slotOf: (value) => {
      if (typeof value === 'string' || Number.isNaN(value)) return bins;
      if (value <= lowest || value > highest) return bins + 1;
      let from = 0;
      let to = bins;
      while (to - from > 1) {
        const middle = (from + to) >> 1;
        if (value > (edges[middle] as number)) from = middle;
        else to = middle;
      }
      return from;
    },
  };
}

function categorySlots(values: readonly string[]): Slots {
  const byValue = new Map<FeatureValue, number>(values.map((value, slot) => [value, slot]));
  // Numbers as they are: turning each into text would cost more than all else.
  for (const [slot, value] of values.entries())
    if (String(Number(value)) === value) byValue.set(Number(value), slot);
  return {
    length: values.length + 2,
    slotOf: (value) => byValue.get(value) ?? values.length + (Number.isNaN(value) ? 0 : 1),
  };
}
