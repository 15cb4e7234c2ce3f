import type { CatalogState } from '../catalog-state.ts';
import { plansOf } from '../channels.ts';
import type { IsKnown } from './series.ts';

/** Arms that every rollout has: candidate and control, and none for what runs in the shadow. */
const everyArm: readonly string[] = ['t', 'c', ''];

/** Creates the test for releases and places in rollouts that a catalog has, or had while this process ran. */
export function createKnown(state: () => Promise<CatalogState>): IsKnown {
  let seen: CatalogState | undefined;
  let releases = new Set<string>();
  return async ({ app, model, version, rollout, stage, arm }) => {
    const present = await state();
    if (present !== seen) {
      seen = present;
      const listed = [...(present.published?.releases.values() ?? [])];
      releases = new Set(listed.map((release) => `${release.model} ${release.version}`));
    }
    if (!releases.has(`${model} ${version}`)) return false;
    const channels = present.published?.channels ?? {};
    if (!Object.hasOwn(channels, app)) return false;
    if (rollout === '') return stage === 0 && arm === '';
    const plan = plansOf(channels, app).find(({ id }) => id === rollout);
    if (!plan || plan.model !== model) return false;
    const arms = [...everyArm, ...(plan.arms ?? []).map(({ name }) => name)];
    return stage <= (plan.stage ?? 0) && arms.includes(arm);
  };
}
