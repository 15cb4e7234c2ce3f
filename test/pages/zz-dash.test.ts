import { it } from 'vitest';
import { openDashboardWorld } from './dashboard-fixture.ts';
import { startChromium } from './fixture.ts';
it('shots', async () => {
  const t0 = performance.now();
  const world = await openDashboardWorld();
  console.log('world', Math.round(performance.now() - t0), world.errors);
  const browser = await startChromium();
  const all = (process.env.SHOTS ?? 'light,dark,phone').split(',');
  const only = process.env.PAGES?.split(',');
  for (const [theme, w, h] of [['light', 1360, 900], ['dark', 1360, 900], ['phone', 360, 780]] as const) {
    if (!all.includes(theme)) continue;
    const c = await browser.newContext({ viewport: { width: w, height: h }, colorScheme: theme === 'dark' ? 'dark' : 'light' });
    const p = await c.newPage();
    p.on('console', (m) => { if (m.type() === 'error') console.log(theme, m.text(), m.location().url); });
    p.on('pageerror', (e) => { console.log('ERR', e.message); });
    await p.goto(world.url + '#key=' + world.keys.admin);
    await p.waitForTimeout(900);
    for (const [name, hash] of [['overview', '#/'], ['rollouts', '#/rollouts'], ['rollout', '#/rollouts/stable/digits'], ['speech', '#/rollouts/stable/speech'], ['faces', '#/rollouts/stable/faces'], ['performance', '#/performance/digits'], ['drift', '#/drift/digits'], ['alerts', '#/alerts'], ['audit', '#/audit'], ['health', '#/health']]) {
      if (only && !only.includes(name!)) continue;
      await p.evaluate((x) => { location.hash = x; }, hash!);
      await p.waitForTimeout(700);
      const wide = await p.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      if (wide > 0) console.log(theme, name, 'overflows by', wide);
      await p.screenshot({ path: `/tmp/b8/shot-${theme}-${name}.png`, fullPage: true });
    }
    await c.close();
  }
  await browser.close();
  await world.close();
}, 120_000);
