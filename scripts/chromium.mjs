import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { install, isExecutable, mayInstall } from './apt.mjs';
import { SetupError } from './run.mjs';

/** True if the person asked to leave the browser tests out. */
export const skipsBrowser = () => ['1', 'true'].includes(process.env.INLAY_SKIP_BROWSER ?? '');

/**
 * Finds a Chromium that can run the browser tests: `CHROME_PATH`, a system browser, then Playwright's.
 * @returns its path, or `undefined`.
 */
export function findChromium() {
  const named = process.env.CHROME_PATH;
  if (named !== undefined && named !== '') {
    if (isExecutable(named)) return named;
    throw new SetupError(`CHROME_PATH names '${named}', which is no program: correct it or unset it.`);
  }
  return [...systemPaths(), ...playwrightPaths()].find(isExecutable);
}

/** Finds a Chromium, or installs one where this process may. */
export async function ensureChromium() {
  if (skipsBrowser()) {
    console.log(
      'INLAY_SKIP_BROWSER is set: the browser tests (test/core and test/browser in Chromium) are skipped.',
    );
    return;
  }
  const missing = findChromium() === undefined ? ['chromium'] : [];
  if (process.env.CI && process.platform === 'linux' && !hasVulkan()) missing.push('libvulkan1');
  if (mayInstall()) await install(missing);
  if (findChromium() === undefined) {
    throw new SetupError(
      'The browser tests need Chromium or Chrome and none was found: install one, or set CHROME_PATH to it, or set INLAY_SKIP_BROWSER=1 to leave these tests out.',
    );
  }
}

function systemPaths() {
  const env = process.env;
  if (process.platform === 'darwin') {
    return ['/Applications', join(homedir(), 'Applications')].flatMap((folder) => [
      join(folder, 'Google Chrome.app/Contents/MacOS/Google Chrome'),
      join(folder, 'Chromium.app/Contents/MacOS/Chromium'),
    ]);
  }
  if (process.platform === 'win32') {
    return [env.PROGRAMFILES, env['PROGRAMFILES(X86)'], env.LOCALAPPDATA]
      .filter(Boolean)
      .flatMap((folder) => [
        join(folder, 'Google/Chrome/Application/chrome.exe'),
        join(folder, 'Chromium/Application/chrome.exe'),
      ]);
  }
  const names = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'];
  const folders = new Set([
    ...(env.PATH ?? '').split(':').filter(Boolean),
    '/usr/bin',
    '/usr/local/bin',
    '/snap/bin',
  ]);
  return [...folders].flatMap((folder) => names.map((name) => join(folder, name)));
}

function playwrightPaths() {
  const env = process.env;
  const cache =
    env.PLAYWRIGHT_BROWSERS_PATH ??
    {
      darwin: join(homedir(), 'Library/Caches/ms-playwright'),
      win32: join(env.LOCALAPPDATA ?? homedir(), 'ms-playwright'),
    }[process.platform] ??
    join(env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'ms-playwright');
  if (!existsSync(cache)) return [];
  const programs = [
    'chrome-linux/chrome',
    'chrome-linux64/chrome',
    'chrome-mac/Chromium.app/Contents/MacOS/Chromium',
    'chrome-win/chrome.exe',
    'chrome-win64/chrome.exe',
  ];
  return readdirSync(cache)
    .filter((folder) => /^chromium-\d+$/.test(folder))
    .sort((a, b) => Number(b.slice('chromium-'.length)) - Number(a.slice('chromium-'.length)))
    .flatMap((folder) => programs.map((program) => join(cache, folder, program)));
}

/** Chromium's WebGPU needs the Vulkan loader, which Debian's package does not depend on. */
function hasVulkan() {
  try {
    return execFileSync('ldconfig', ['-p'], { encoding: 'utf8' }).includes('libvulkan.so.1');
  } catch {
    return true;
  }
}
