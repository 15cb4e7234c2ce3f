/** The windows that are open now, one for each model, version, place in a rollout and profile. */

import type { Platform } from '../core/platform.ts';
import type { ReportWindow } from './report.ts';
import { openWindow, textOfKey, type CuttableWindow, type OpenWindow, type WindowKey } from './window.ts';

/** Open windows of all models. */
export interface Windows {
  /** The window of a key; opens it where there is none. Good until it is closed. */
  open(key: WindowKey, baseline?: ReportWindow['bl']): OpenWindow;
  /** Closes all windows and gives those that have counted something. */
  cut(): readonly ReportWindow[];
}

/**
 * Creates them. A window begins by the wall clock, at the minute before, and lasts by the monotonic one: a clock that is set
 * makes none longer, shorter or negative.
 */
export function createWindows(platform: Pick<Platform, 'now' | 'monotonicMs'>): Windows {
  interface Timed {
    readonly window: CuttableWindow;
    readonly beganMs: number;
    readonly sinceMs: number;
  }
  let opened = new Map<string, Timed>();

  return {
    open: (key, baseline) => {
      const name = textOfKey(key);
      let timed = opened.get(name);
      if (timed === undefined) {
        const window = openWindow(key, baseline);
        timed = { window, beganMs: platform.now(), sinceMs: platform.monotonicMs() };
        opened.set(name, timed);
      }
      return timed.window;
    },
    cut: () => {
      const cut = [...opened.values()];
      opened = new Map();
      const nowMs = platform.monotonicMs();
      return cut.flatMap(({ window, beganMs, sinceMs }) => {
        window.close();
        const t = Math.max(0, Math.floor(beganMs / 60_000) * 60);
        // Measured from `t`, so that windows that begin in one minute join to what they covered together.
        const endS = (beganMs + Math.max(0, nowMs - sinceMs)) / 1000;
        return window.snapshot(t, Math.max(1, Math.ceil(endS - t))) ?? [];
      });
    },
  };
}
