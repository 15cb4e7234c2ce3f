import { server } from './environment.js';
import * as files from './files.js';
import fixture from './fixture.json';
import { createInlay } from 'inlay';
import { openReactNativeStore } from 'inlay/stores/react-native';

const answers = {};
const code = (promise) =>
  promise.then(
    () => 'fulfilled',
    (error) => error.code ?? String(error),
  );
const turn = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const appListeners = new Set();
const appState = {
  currentState: 'active',
  addEventListener: (type, listener) => {
    appListeners.add(listener);
    return { remove: () => appListeners.delete(listener) };
  },
  become(state) {
    appState.currentState = state;
    for (const listener of [...appListeners]) listener(state);
  },
};
let seed = 1;
const crypto = {
  getRandomValues(bytes) {
    for (let i = 0; i < bytes.length; i += 1) bytes[i] = seed = (seed * 16807) % 2147483647;
    return bytes;
  },
};

async function main() {
  const store = openReactNativeStore({ files });
  for (const [text, sha256] of fixture.hashes) {
    const bytes = Uint8Array.from(text, (character) => character.charCodeAt(0));
    const blob = await store.putBlob(sha256, bytes);
    answers[`sha256 of ${bytes.length} bytes`] = (await blob.bytes()).length === bytes.length;
  }
  answers['wrong hash'] = await code(store.putBlob(fixture.hashes[0][1], Uint8Array.of(1)));
  const other = fixture.hashes[0][1].replace(/^./, 'f');
  answers['another wrong hash'] = await code(store.putBlob(other, Uint8Array.of(1)));

  globalThis.appFiles.set('/data/app/files/model é.onnx', Uint8Array.from(fixture.model));
  globalThis.appFiles.set('/data/app/files/broken.onnx', Uint8Array.of(1, 2, 3));
  const sync = { url: 'https://sync.test', root: fixture.root, pollMs: 1000 };
  const inlay = createInlay({ files, crypto, appState, sync });
  const model = await inlay.load('file:///data/app/files/model%20%C3%A9.onnx');
  const image = Float32Array.from(fixture.image);
  answers.signature = model.signature;
  answers.logits = [...(await model.run({ image })).logits.data];
  const window = new Float32Array(image.length + 3);
  window.set(image, 3);
  answers['logits of a view'] = [...(await model.run({ image: window.subarray(3) })).logits.data];
  answers['all at once'] = (await Promise.all(Array.from({ length: 9 }, () => model.run({ image })))).every(
    ({ logits }) => logits.data[0] === answers.logits[0],
  );
  const controller = new AbortController();
  const { signal } = controller;
  answers['logits with a signal'] = [...(await model.run({ image }, { signal })).logits.data];
  const given = [model.run({ image }, { signal }), inlay.load(Uint8Array.from(fixture.model), { signal })];
  controller.abort();
  given.push(model.run({ image }, { signal }), inlay.load(Uint8Array.from(fixture.model), { signal }));
  answers['given up'] = await Promise.all(given.map(code));
  answers['missing file'] = await code(inlay.load('/data/app/files/none.onnx'));
  answers['broken file'] = await code(inlay.load('/data/app/files/broken.onnx'));
  answers['wrong feed'] = await code(model.run({ image: new Float32Array(3) }));

  answers.offline = await code(inlay.load({ name: 'digits' }));
  server.answers = fixture.states.first;
  const followed = await inlay.load({ name: 'digits' });
  answers['first version'] = followed.version;
  answers['first logits'] = [...(await followed.run({ image })).logits.data];

  // A check that is under way already still gets the answers of before.
  await code(inlay.checkForUpdates());
  server.answers = fixture.states.tampered;
  answers.tampered = await code(inlay.checkForUpdates());
  answers['version after it'] = followed.version;

  server.answers = fixture.states.second;
  const swapped = new Promise((resolve) => {
    followed.on('swapped', resolve);
  });
  await inlay.checkForUpdates();
  await swapped;
  answers['second version'] = followed.version;
  answers['second logits'] = [...(await followed.run({ image })).logits.data];

  await turn(3000);
  appState.become('background');
  // A request that is under way comes to its end.
  await turn(50);
  answers.polls = server.requests.length;
  await turn(60_000);
  answers['polls in the background'] = server.requests.length - answers.polls;
  answers.polls = answers.polls > 0;
  const before = server.requests.length;
  appState.become('active');
  await turn(100);
  answers['polls on the way back'] = server.requests.length - before;

  const { store: kept, backends, runtime } = inlay.info();
  answers.info = { kept, backends, runtime };
  await inlay.close();
  answers.closed = await code(model.run({ image }));

  server.answers = {};
  const again = createInlay({ files, crypto, appState, sync });
  const offline = await again.load({ name: 'digits' });
  answers['version after a restart without network'] = offline.version;
  await again.close();

  const reports = [];
  const forgotten = [];
  const answer = (value) => ({
    headers: {},
    body: Array.from(JSON.stringify(value), (character) => character.charCodeAt(0)),
  });
  server.answers = {
    ...fixture.states.second,
    'https://sync.test/v1/reports': (text) => {
      const taken = JSON.parse(text).reports;
      reports.push(...taken);
      return answer({ done: taken.map(({ epoch, seq }) => ({ epoch, seq })), refused: [] });
    },
    'https://sync.test/v1/forget': (text) => {
      forgotten.push(JSON.parse(text).dev);
      return answer({});
    },
  };
  const calls = () => reports.reduce((sum, { win }) => win.reduce((n, one) => n + one.n, sum), 0);
  const telling = createInlay({ files, crypto, appState, sync, telemetry: { consent: 'full' } });
  const told = await telling.load({ name: 'digits' });
  for (let i = 0; i < 3; i += 1) await told.run({ image });
  await telling.telemetry.flush();
  answers['calls reported'] = calls();
  await told.run({ image });
  appState.become('background');
  await turn(1000);
  answers['calls reported in the background'] = calls();
  const { queued, lastError, device } = await telling.telemetry.state();
  answers['state of telemetry'] = { queued, lastError: lastError ?? null };
  answers.reporters = [...new Set(reports.map(({ dev, rt, cls }) => `${rt} ${cls} ${dev === device}`))];
  await telling.telemetry.setConsent('unset');
  answers.forgotten = forgotten.length === 1 && forgotten[0] === device;
  await telling.close();
}

main().then(
  () => print(JSON.stringify(answers)),
  (error) =>
    print(
      JSON.stringify({
        ...answers,
        failed: `${error?.name} ${error?.code} ${error?.message ?? error}\n${error?.stack}`,
      }),
    ),
);
