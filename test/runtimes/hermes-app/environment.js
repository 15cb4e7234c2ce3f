// What React Native 0.74 and later put around Hermes, where this older VM lacks it. Nothing else: no TextEncoder,
// TextDecoder, crypto, performance, structuredClone, MessageChannel, WebAssembly or Symbol.asyncIterator.

/** Timers in virtual time: the next one is due when nothing else is left to do. */
const host = globalThis.setTimeout;
let timers = [];
let now = 0;
let count = 0;
let isPumping = false;
function pump() {
  timers.sort((a, b) => a.at - b.at || a.id - b.id);
  const next = timers.shift();
  isPumping = next !== undefined;
  if (!isPumping) return;
  now = next.at;
  next.task();
  host(pump, 0);
}
globalThis.setTimeout = (task, delayMs = 0) => {
  count += 1;
  timers.push({ id: count, at: now + delayMs, task });
  if (!isPumping) {
    isPumping = true;
    host(pump, 0);
  }
  return count;
};
globalThis.clearTimeout = (id) => {
  timers = timers.filter((timer) => timer.id !== id);
};
globalThis.setImmediate = (task) => globalThis.setTimeout(() => task(), 0);
const started = Date.now();
Date.now = () => Math.floor(started + now);

const at = function at(index) {
  return this[index < 0 ? this.length + index : index];
};
for (const List of [Array, Uint8Array, Float32Array]) List.prototype.at = List.prototype.at || at;
Promise.allSettled =
  Promise.allSettled ||
  ((promises) =>
    Promise.all(
      [...promises].map((promise) =>
        Promise.resolve(promise).then(
          (value) => ({ status: 'fulfilled', value }),
          (reason) => ({ status: 'rejected', reason }),
        ),
      ),
    ));

/** As React Native's: a signal has no reason and no `throwIfAborted`. */
class AbortSignal {
  constructor() {
    this.aborted = false;
    this.listeners = new Set();
  }
  addEventListener(type, listener) {
    this.listeners.add(listener);
  }
  removeEventListener(type, listener) {
    this.listeners.delete(listener);
  }
}
globalThis.AbortSignal = AbortSignal;
globalThis.AbortController = class AbortController {
  constructor() {
    this.signal = new AbortSignal();
  }
  abort() {
    if (this.signal.aborted) return;
    this.signal.aborted = true;
    for (const listener of [...this.signal.listeners]) listener({ type: 'abort' });
  }
};
globalThis.URL = class URL {
  constructor(href) {
    this.href = href;
  }
  toString() {
    return this.href;
  }
};

/** As React Native's `fetch` has them: a body has no stream. */
globalThis.Headers = class Headers {
  constructor() {
    this.map = {};
  }
  append(name, value) {
    this.map[name.toLowerCase()] = value;
  }
  get(name) {
    return this.map[name.toLowerCase()] ?? null;
  }
  has(name) {
    return name.toLowerCase() in this.map;
  }
};
globalThis.Response = class Response {
  constructor(body, { status, headers }) {
    Object.assign(this, { content: body, status, headers, ok: status >= 200 && status < 300 });
  }
  async arrayBuffer() {
    return this.content ?? new ArrayBuffer(0);
  }
};

/** Answers by address, or what makes them of the text of a request; a test changes them. */
export const server = { answers: {}, requests: [] };
globalThis.XMLHttpRequest = class XMLHttpRequest {
  constructor() {
    this.headers = {};
  }
  open(method, url) {
    this.url = url;
  }
  setRequestHeader(name, value) {
    this.headers[name.toLowerCase()] = value;
  }
  getAllResponseHeaders() {
    return Object.entries(this.answer.headers)
      .map(([name, value]) => `${name}: ${value}\n`)
      .join('');
  }
  abort() {
    this.isOver = true;
  }
  send(body) {
    setTimeout(() => {
      if (this.isOver) return;
      server.requests.push(this.url);
      const known = server.answers[this.url];
      const answer = typeof known === 'function' ? known(String.fromCharCode(...body)) : known;
      if (answer === undefined) {
        this.onerror();
        return;
      }
      const isKnown =
        answer.headers.etag !== undefined && this.headers['if-none-match'] === answer.headers.etag;
      this.answer = answer;
      this.status = isKnown ? 304 : 200;
      this.response = Uint8Array.from(isKnown ? [] : answer.body).buffer;
      this.onload();
    }, 5);
  }
};
