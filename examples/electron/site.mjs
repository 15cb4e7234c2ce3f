import { readFile } from 'node:fs/promises';

export const SCHEME = 'app';
/** Where the page is, as far as the page knows. */
export const ORIGIN = `${SCHEME}://digits`;

/** What the page may do: nothing that did not come with the app. */
export const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; base-uri 'none'";

const OWN = new URL('renderer/', import.meta.url);
const SHARED = new URL('../browser-digits/app/', import.meta.url);
const HTML = 'text/html; charset=utf-8';
const SCRIPT = 'text/javascript; charset=utf-8';
const STYLE = 'text/css; charset=utf-8';

/** Everything that there is; a path that is not in this list is not looked for. */
const FILES = {
  '/': { file: new URL('index.html', OWN), type: HTML },
  '/renderer.js': { file: new URL('renderer.js', OWN), type: SCRIPT },
  '/chart.js': { file: new URL('chart.js', SHARED), type: SCRIPT },
  '/pad.js': { file: new URL('pad.js', SHARED), type: SCRIPT },
  '/picture.js': { file: new URL('picture.js', SHARED), type: SCRIPT },
  '/style.css': { file: new URL('style.css', SHARED), type: STYLE },
};

/**
 * Answers the requests of the page.
 * @param {Request} request
 * @returns {Promise<Response>}
 */
export async function answer({ url }) {
  const entry = Object.hasOwn(FILES, new URL(url).pathname) ? FILES[new URL(url).pathname] : undefined;
  if (entry === undefined) return new Response('There is nothing at this address.', { status: 404 });
  return new Response(await readFile(entry.file), {
    headers: {
      'content-type': entry.type,
      'content-security-policy': POLICY,
      'x-content-type-options': 'nosniff',
    },
  });
}
