/** Browsers of the Chromium family that are installed. */

import { accessSync, constants, statSync } from 'node:fs';
import { homedir } from 'node:os';
import { delimiter, join } from 'node:path';

/** What is looked at to find a browser. */
export interface BrowserPlaces {
  /** As `process.platform`. */
  readonly os: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly home: string;
  isProgram(path: string): boolean;
}

const LINUX_NAMES = [
  'google-chrome-stable',
  'google-chrome',
  'chromium',
  'chromium-browser',
  'microsoft-edge-stable',
  'microsoft-edge',
];
const MAC_NAMES = ['Google Chrome', 'Chromium', 'Microsoft Edge'];
const WINDOWS_PATHS = [
  'Google/Chrome/Application/chrome.exe',
  'Chromium/Application/chrome.exe',
  'Microsoft/Edge/Application/msedge.exe',
];

/**
 * Finds Chrome, Chromium or Edge: the one that `CHROME_PATH` names, or else where their installers put them.
 * @returns its path; `undefined` if there is none.
 */
export function findBrowser(places: BrowserPlaces = thisMachine()): string | undefined {
  return candidates(places).find((path) => places.isProgram(path));
}

function candidates({ os, env, home }: BrowserPlaces): readonly string[] {
  const named = env['CHROME_PATH'];
  if (named !== undefined && named !== '') return [named];
  const within = (folders: readonly string[], names: readonly string[]): string[] =>
    folders.flatMap((folder) => names.map((name) => join(folder, name)));
  if (os === 'darwin') {
    const programs = MAC_NAMES.map((name) => `${name}.app/Contents/MacOS/${name}`);
    return within(['/Applications', join(home, 'Applications')], programs);
  }
  if (os === 'win32') {
    const folders = [env['PROGRAMFILES'], env['PROGRAMFILES(X86)'], env['LOCALAPPDATA']];
    return within(
      folders.filter((folder) => folder !== undefined),
      WINDOWS_PATHS,
    );
  }
  const path = (env['PATH'] ?? '').split(delimiter).filter((folder) => folder !== '');
  return within([...new Set([...path, '/usr/bin', '/usr/local/bin', '/snap/bin'])], LINUX_NAMES);
}

function thisMachine(): BrowserPlaces {
  return { os: process.platform, env: process.env, home: homedir(), isProgram };
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}
