import type { Platform } from './core/platform.ts';
import { webPlatform } from './platform.ts';

/** Promise reactions after which what was started in one go is there: more than a call needs to reach its queue. */
const REACTIONS = 8;
/** Clocks have steps of this, in milliseconds, in edge runtimes. */
const STEP_MS = 1;

/**
 * The platform of edge runtimes. Timers and ports belong to the request that made them there, and go with it; what
 * several requests wait for must not hang on one of them. So tasks are deferred by promise reactions alone, and a wait
 * that is no longer than a step of the clock is over at once.
 */
export function edgePlatform(): Platform {
  const web = webPlatform(globalThis.navigator?.userAgent === 'Cloudflare-Workers' ? 'workerd' : 'edge');
  const defer = (task: () => void): void => {
    let reaction = Promise.resolve();
    for (let i = 1; i < REACTIONS; i += 1) reaction = reaction.then(() => {});
    void reaction.then(task);
  };
  return {
    ...web,
    defer,
    setTimer: (task, delayMs, keepAlive) => {
      if (delayMs > STEP_MS) return web.setTimer(task, delayMs, keepAlive);
      let isCancelled = false;
      defer(() => {
        if (!isCancelled) task();
      });
      return () => {
        isCancelled = true;
      };
    },
  };
}
