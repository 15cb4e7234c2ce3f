/**
 * Keeps the page itself, so that it opens without network. Models are not its business: Inlay keeps those.
 * `../shell.mjs` puts `SHELL` in: what one visit needs, and a version that changes with it.
 */
/* global SHELL */
const NAME = `shell-${SHELL.version}`;

addEventListener('install', (event) => {
  event.waitUntil(caches.open(NAME).then((cache) => cache.addAll(SHELL.paths)));
});

addEventListener('activate', (event) => {
  event.waitUntil(removeOthers().then(() => clients.claim()));
});

addEventListener('fetch', (event) => {
  const { request } = event;
  const isOwn = new URL(request.url).origin === location.origin;
  if (isOwn && request.method === 'GET') event.respondWith(answer(request));
});

async function answer(request) {
  const cache = await caches.open(NAME);
  const kept = await cache.match(request.mode === 'navigate' ? '/' : request, { ignoreVary: true });
  if (kept !== undefined) return kept;
  const response = await fetch(request);
  // Parts that only some devices need, such as those for GPUs; their names change with their content.
  if (response.ok && new URL(request.url).pathname.startsWith('/assets/')) {
    await cache.put(request, response.clone());
  }
  return response;
}

async function removeOthers() {
  const names = await caches.keys();
  await Promise.all(names.filter((name) => name !== NAME).map((name) => caches.delete(name)));
}
