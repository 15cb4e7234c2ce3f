import { fileURLToPath } from 'node:url';
import { createReader } from './reader.mjs';
import { answer, ORIGIN, SCHEME } from './site.mjs';

/**
 * The main process. Parts of Electron are passed in, so that tests can run it without a window.
 * @param {Pick<typeof import('electron/main'), 'app' | 'BrowserWindow' | 'ipcMain' | 'protocol'>} electron
 */
export async function startApp({ app, BrowserWindow, ipcMain, protocol }) {
  // A page of file: may neither import modules nor fetch; a scheme of one's own is an origin like any other.
  protocol.registerSchemesAsPrivileged([
    { scheme: SCHEME, privileges: { standard: true, secure: true, supportFetchAPI: true } },
  ]);
  const reader = createReader();
  ipcMain.handle('digits:read', (event, image) => {
    assertOwnPage(event);
    return reader.read(image);
  });
  ipcMain.handle('digits:info', (event) => {
    assertOwnPage(event);
    return reader.info();
  });
  app.on('window-all-closed', () => app.quit());
  let isClosed = false;
  app.on('will-quit', (event) => {
    if (isClosed) return;
    // Runs that were accepted are answered before the process ends.
    event.preventDefault();
    void reader.close().finally(() => {
      isClosed = true;
      app.quit();
    });
  });

  await app.whenReady();
  protocol.handle(SCHEME, answer);
  const window = new BrowserWindow({
    width: 1040,
    height: 780,
    webPreferences: {
      preload: fileURLToPath(new URL('preload.cjs', import.meta.url)),
      sandbox: true,
      contextIsolation: true,
      nodeIntegration: false,
    },
  });
  window.webContents.setWindowOpenHandler(() => ({ action: 'deny' }));
  window.webContents.on('will-navigate', (event) => event.preventDefault());
  await window.loadURL(`${ORIGIN}/`);
}

/** Only the page that came with the app may ask. */
function assertOwnPage({ senderFrame }) {
  if (senderFrame !== null && new URL(senderFrame.url).host === new URL(ORIGIN).host) return;
  throw new Error('This page may not use the model.');
}
