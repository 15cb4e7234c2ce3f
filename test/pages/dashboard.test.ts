import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Browser, Page } from 'playwright';
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest';
import type { RolloutEvidence } from '../../src/server/api/answers.ts';
import { openDashboardWorld, type DashboardWorld } from './dashboard-fixture.ts';
import { describePages, startChromium } from './fixture.ts';

/** Folder for images of some pages, such as `docs/images`; none are kept without it. */
const images = process.env.INLAY_DASHBOARD_IMAGES;
const kept = [
  'overview-light',
  'overview-phone',
  'performance-light',
  'drift-dark',
  'rollout-dark',
  'rollout-phone',
];

const forms = {
  light: { viewport: { width: 1360, height: 900 }, colorScheme: 'light' },
  dark: { viewport: { width: 1360, height: 900 }, colorScheme: 'dark' },
  phone: { viewport: { width: 360, height: 780 }, colorScheme: 'light' },
} as const;

interface Opened {
  readonly page: Page;
  /** What the page threw, and logged as an error. */
  readonly faults: string[];
  go(hash: string, heading: string): Promise<void>;
}

describePages('the dashboard', () => {
  let browser: Browser;
  let world: DashboardWorld;
  let empty: DashboardWorld;

  beforeAll(async () => {
    [browser, world, empty] = await Promise.all([
      startChromium(),
      openDashboardWorld(),
      openDashboardWorld({ hasFleet: false }),
    ]);
  });
  afterAll(async () => {
    await browser.close();
    await Promise.all([world.close(), empty.close()]);
  });

  const open = async (
    key: string | undefined = world.keys.admin,
    { url }: Pick<DashboardWorld, 'url'> = world,
    form: keyof typeof forms = 'light',
  ): Promise<Opened> => {
    const context = await browser.newContext({
      ...forms[form],
      permissions: ['clipboard-write', 'clipboard-read'],
    });
    onTestFinished(() => context.close());
    const page = await context.newPage();
    page.setDefaultTimeout(10_000);
    const faults: string[] = [];
    page.on('pageerror', (error) => faults.push(String(error)));
    page.on('console', (message) => {
      if (message.type() === 'error') faults.push(message.text());
    });
    await page.goto(key === '' ? url : `${url}#key=${key}`);
    return {
      page,
      faults,
      go: async (hash, heading) => {
        await page.evaluate((to) => {
          location.hash = to;
        }, hash);
        await page.getByRole('heading', { level: 1, name: heading }).waitFor();
        await page.locator('.waiting').first().waitFor({ state: 'detached' });
      },
    };
  };

  const pages = [
    ['overview', '#/', 'Overview'],
    ['rollouts', '#/rollouts', 'Rollouts'],
    ['rollout', '#/rollouts/stable/digits', 'digits 1.2.0'],
    ['performance', '#/performance/digits', 'Performance'],
    ['drift', '#/drift/digits', 'Drift'],
    ['alerts', '#/alerts', 'Alerts'],
    ['audit', '#/audit', 'Audit'],
    ['telemetry', '#/health', 'Telemetry'],
  ] as const;

  it.each(['light', 'dark', 'phone'] as const)('shows every page without a fault: %s', async (form) => {
    const { page, faults, go } = await open(undefined, world, form);
    for (const [name, hash, heading] of pages) {
      await go(hash, heading);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      expect(wide, `${name} is wider than the screen`).toBeLessThanOrEqual(0);
      expect(await lowContrast(page), name).toEqual([]);
      expect(await unnamed(page), name).toEqual([]);
      if (images !== undefined && kept.includes(`${name}-${form}`)) {
        await mkdir(images, { recursive: true });
        await page.mouse.move(0, 0);
        await page.screenshot({
          path: join(images, `dashboard-${name}-${form}.png`),
          fullPage: form !== 'phone',
        });
      }
    }
    expect(await page.getByRole('alert').count()).toBe(0);
    expect(faults).toEqual([]);
    expect(world.errors).toEqual([]);
  });

  it('takes a key from the address and from the form, keeps it in the tab, and forgets it', async () => {
    const { page } = await open();
    await page.getByRole('heading', { level: 1, name: 'Overview' }).waitFor();
    expect(page.url()).not.toContain('key=');
    expect(await page.evaluate(() => [localStorage.getItem('inlay-key'), document.cookie])).toEqual([
      null,
      '',
    ]);
    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.getByLabel('API key').fill('inlay_wrong');
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.getByText('The server does not know this key.').waitFor();
    await page.getByLabel('API key').fill(world.keys.viewer);
    await page.keyboard.press('Enter');
    await page.getByRole('heading', { level: 1, name: 'Overview' }).waitFor();
    await page.reload();
    await page.getByRole('heading', { level: 1, name: 'Overview' }).waitFor();
    expect(await page.evaluate(() => Object.keys(sessionStorage))).toEqual(['inlay-key']);
  });

  it('leads back to the form when the key is revoked', async () => {
    const { page } = await open(world.keys.viewer);
    await page.getByRole('heading', { level: 1, name: 'Overview' }).waitFor();
    await page.evaluate(() => sessionStorage.setItem('inlay-key', 'inlay_revoked'));
    await page.reload();
    await page.getByLabel('API key').waitFor();
  });

  it('shows the guard that halted a rollout, with its evidence against both thresholds', async () => {
    const { page, go } = await open();
    await go('#/rollouts/stable/digits', 'digits 1.2.0');
    const evidence = await ask<RolloutEvidence>(world, '/rollouts/stable/digits/evidence');
    const errors = evidence.guards.find(({ guard }) => guard === 'errors');
    expect(errors?.verdict).toBe('fail');
    await page.getByText(`${errors?.treated.bad} of ${errors?.treated.judged}`).first().waitFor();
    await page.getByRole('img', { name: 'Evidence of the guard errors' }).waitFor();
    await page.getByText('Figures of Evidence of the guard errors').click();
    await page.getByRole('columnheader', { name: 'good enough' }).waitFor();
    expect(await page.locator('.data[open] tbody tr').count()).toBe(errors?.history.length);
    await page.getByRole('button', { name: 'latency' }).click();
    await page.getByRole('img', { name: 'Evidence of the guard latency' }).waitFor();
    await page.getByText('Exposed devices').waitFor();
    expect(await page.locator('.stat', { hasText: 'Exposed devices' }).innerText()).toContain(
      String(evidence.devices.exposed),
    );
  });

  it('does what the command line does, with a reason, and shows that command line', async () => {
    const { page, go } = await open(world.keys.publisher);
    await go('#/rollouts/stable/speech', 'speech 2.0.0');
    await page.getByRole('button', { name: 'Promote' }).click();
    const dialog = page.getByRole('dialog');
    await dialog.getByRole('button', { name: 'Promote', exact: true }).click();
    // Without a reason the form does not go.
    expect(await dialog.isVisible()).toBe(true);
    await dialog.getByRole('button', { name: 'Cancel', exact: true }).click();
    await dialog.waitFor({ state: 'hidden' });
    await page.getByRole('button', { name: 'Pause' }).click();
    const reason = `it's $(slow) "today"`;
    await dialog.getByRole('textbox').fill(reason);
    const command = String.raw`npx inlay rollout pause speech --reason 'it'\''s $(slow) "today"'`;
    await dialog.getByText(command).waitFor();
    await dialog.getByRole('button', { name: /^Copy/ }).click();
    await dialog.getByText('Copied').waitFor();
    expect(await page.evaluate(() => navigator.clipboard.readText())).toBe(command);
    await dialog.getByRole('button', { name: 'Pause', exact: true }).click();
    await dialog.waitFor({ state: 'hidden' });
    await page.getByRole('heading', { name: 'paused' }).waitFor();
    const { plan } = await ask<RolloutEvidence>(world, '/rollouts/stable/speech/evidence');
    expect(plan.state).toBe('paused');
    await page.getByRole('listitem').filter({ hasText: 'pause by' }).waitFor();
    await page.getByRole('button', { name: 'Resume' }).click();
    await dialog.waitFor();
    await page.keyboard.press('Escape');
    await dialog.waitFor({ state: 'hidden' });
    await page.getByRole('button', { name: 'Resume' }).click();
    await dialog.getByRole('button', { name: 'Resume', exact: true }).click();
    await page.getByRole('heading', { name: 'under way' }).waitFor();
  });

  it('offers a viewer no change, and says what a change takes', async () => {
    const { page, go } = await open(world.keys.viewer);
    await go('#/rollouts/stable/speech', 'speech 2.0.0');
    await page.getByText('takes the role publisher').waitFor();
    expect(await page.getByRole('button', { name: 'Roll back' }).count()).toBe(0);
    await go('#/alerts', 'Alerts');
    await page.getByText('3.4 % of the calls').first().waitFor();
    expect(await page.getByRole('button', { name: 'Silence' }).count()).toBe(0);
  });

  it('shows a key of one model that model, and says what else it may not see', async () => {
    const { page, faults, go } = await open(world.keys.other);
    await go('#/', 'Overview');
    await page.getByRole('link', { name: 'faces 3.1.0' }).waitFor();
    expect(await page.getByRole('link', { name: 'digits' }).count()).toBe(0);
    await page.getByText('< 20').first().waitFor();
    expect(faults).toEqual([]);
    await go('#/alerts', 'Alerts');
    await page.getByText('The key is limited to the models faces').waitFor();
  });

  it('takes an alert, silences it, and ends the silence', async () => {
    const { page, go } = await open(world.keys.publisher);
    await go('#/alerts', 'Alerts');
    const dialog = page.getByRole('dialog');
    const alert = page.getByRole('listitem').filter({ hasText: 'model=digits  version=1.2.0' });
    await alert.getByRole('button', { name: 'Silence' }).click();
    await dialog.getByLabel('For how long').selectOption('1d');
    await dialog.getByLabel('Why?').fill('known');
    await dialog
      .getByText(
        'npx inlay alerts silence rule=error-rate model=digits version=1.2.0 --for 1d --comment known',
      )
      .waitFor();
    await dialog.getByRole('button', { name: 'Silence', exact: true }).click();
    const silence = page.getByRole('listitem').filter({ hasText: ': known' });
    await silence.waitFor();
    await silence.getByRole('button', { name: 'End' }).click();
    await silence.waitFor({ state: 'detached' });
    await alert.getByRole('button', { name: 'Take it' }).click();
    await dialog.getByText('npx inlay alerts ack eeeeeeeeeeee').waitFor();
    await dialog.getByRole('button', { name: 'Take it', exact: true }).click();
    await alert.getByText('taken by').waitFor();
  });

  it('is used with the keyboard alone', async () => {
    const { page, go } = await open();
    await go('#/', 'Overview');
    await page.keyboard.press('?');
    await page.getByRole('dialog', { name: 'Keys' }).waitFor();
    await page.keyboard.press('Escape');
    await page.keyboard.press('g');
    await page.keyboard.press('p');
    await page.getByRole('heading', { level: 1, name: 'Performance' }).waitFor();
    const p95 = page.getByRole('radio', { name: 'P95' });
    await p95.focus();
    await page.keyboard.press('ArrowRight');
    expect(await page.getByRole('radio', { name: 'P99' }).getAttribute('aria-checked')).toBe('true');
    expect(await page.evaluate(() => document.activeElement?.textContent)).toBe('P99');
    await page.getByRole('img', { name: 'arrow keys' }).focus();
    await page.keyboard.press('ArrowLeft');
    await page.locator('[aria-live]', { hasText: 'calls' }).waitFor();
    await page.reload();
    await page.getByRole('heading', { level: 1, name: 'Performance' }).waitFor();
    await page.keyboard.press('Tab');
    await page.keyboard.press('Enter');
    expect(await page.evaluate(() => document.activeElement?.id)).toBe('main');
    expect(page.url()).toContain('#/performance');
    const animation = await focusRing(page);
    expect(animation).not.toBe('none');
  });

  it('says what to do first where there is nothing yet', async () => {
    const { page, faults, go } = await open(empty.keys.admin, empty);
    for (const [hash, heading, command] of [
      ['#/', 'Overview', 'npx inlay publish model.onnx --name digits --version 1.0.0'],
      ['#/rollouts', 'Rollouts', 'npx inlay rollout set digits 1.0.0 --percent 100'],
      ['#/performance', 'Performance', 'createInlay('],
      ['#/drift', 'Drift', 'createInlay('],
      ['#/alerts', 'Alerts', 'npx inlay alerts rules'],
      ['#/health', 'Telemetry', 'createInlay('],
    ] as const) {
      await go(hash, heading);
      await page.getByText(command).first().waitFor();
    }
    expect(faults).toEqual([]);
  });

  it('shows a name from elsewhere as text', async () => {
    const { page, faults, go } = await open();
    await world.db
      .insertInto('device')
      .values({
        ...{
          dev: 'x',
          model: '<img src=x onerror=alert(1)>',
          version: '"><b>',
          rollout: '',
          stage: 0,
          arm: '',
        },
        ...{ cls: 0, sdk: '', runtime: '', app: 'stable', first_at: 0, last_at: Date.now(), last_t_s: 0 },
        counted: '{}',
      })
      .execute();
    onTestFinished(async () => {
      await world.db.deleteFrom('device').where('dev', '=', 'x').execute();
    });
    await page.getByRole('heading', { level: 1, name: 'Overview' }).waitFor();
    await page.reload();
    await go('#/', 'Overview');
    await page.getByText('<img src=x onerror=alert(1)>').first().waitFor();
    await page.getByText('<img src=x onerror=alert(1)>').first().click();
    await page.getByRole('heading', { level: 1, name: 'Performance' }).waitFor();
    expect(await page.locator('img, b:text-is("x")').count()).toBe(0);
    expect(faults).toEqual([]);
  });

  it('keeps what it shows while the server is away, and says so', async () => {
    const { page, go } = await open();
    await go('#/audit', 'Audit');
    await page.getByText('chain holds').waitFor();
    await page.route('**/v1/admin/**', (route) => route.abort());
    await page.evaluate(() => document.dispatchEvent(new Event('visibilitychange')));
    await page.getByRole('alert').filter({ hasText: 'cannot be reached' }).waitFor();
    await page.getByText('chain holds').waitFor();
    await page.unroute('**/v1/admin/**');
    await page.evaluate(() => document.dispatchEvent(new Event('visibilitychange')));
    await page.getByRole('alert').waitFor({ state: 'detached' });
  });
});

async function ask<Answer>(world: DashboardWorld, path: string): Promise<Answer> {
  const response = await fetch(new URL(`/v1/admin${path}`, world.url), {
    headers: { authorization: `Bearer ${world.keys.admin}` },
  });
  return (await response.json()) as Answer;
}

/** Outline of what has the focus. */
function focusRing(page: Page): Promise<string> {
  return page.evaluate(() => {
    const link = document.querySelector<HTMLElement>('nav li a');
    link?.focus({ focusVisible: true });
    return link === null ? 'none' : getComputedStyle(link).outlineStyle;
  });
}

/** Texts with less contrast than WCAG 2.2 §1.4.3 asks for, 4.5 to 1. */
function lowContrast(page: Page): Promise<string[]> {
  return page.evaluate(() => {
    const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
    const rgb = (colour: string, under: readonly number[]): number[] => {
      if (canvas === null) return [];
      canvas.fillStyle = `rgb(${under.join(',')})`;
      canvas.fillRect(0, 0, 1, 1);
      canvas.fillStyle = colour;
      canvas.fillRect(0, 0, 1, 1);
      return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    const behind = (element: Element): number[] => {
      const chain: Element[] = [];
      for (let at: Element | null = element; at; at = at.parentElement) chain.unshift(at);
      return chain.reduce<number[]>(
        (under, at) => rgb(getComputedStyle(at).backgroundColor, under),
        [255, 255, 255],
      );
    };
    const luminance = (colour: readonly number[]): number => {
      const [r = 0, g = 0, b = 0] = colour.map((value) => {
        const share = value / 255;
        return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
      });
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const seen = new Set<string>();
    for (const element of document.querySelectorAll('body *')) {
      const text = [...element.childNodes]
        .filter((node) => node.nodeType === Node.TEXT_NODE)
        .map((node) => node.textContent?.trim())
        .join('');
      if (text === '' || element.closest('svg, canvas, .sr, .skip, noscript') !== null) continue;
      if (element.matches(':disabled') || element.getClientRects().length === 0) continue;
      const under = behind(element);
      const [a, b] = [luminance(rgb(getComputedStyle(element).color, under)), luminance(under)];
      const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      if (ratio < 4.5) seen.add(`${element.tagName}.${element.className}: ${text} ${ratio.toFixed(2)}`);
    }
    return [...seen];
  });
}

/** What can be pressed or seen, and has no name for those who hear it. */
function unnamed(page: Page): Promise<string[]> {
  return page.evaluate(() =>
    [...document.querySelectorAll('button, a, input, select, canvas, svg[role], [role="img"]')]
      .filter((element) => {
        const label = element.getAttribute('aria-label') ?? element.textContent ?? '';
        const isLabelled = element.id !== '' && document.querySelector(`label[for="${element.id}"]`) !== null;
        const isPart = element.parentElement?.closest('label, [role="img"]') ?? null;
        return label.trim() === '' && !isLabelled && isPart === null;
      })
      .map((element) => element.outerHTML.slice(0, 100)),
  );
}
