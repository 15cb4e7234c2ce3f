/** Electron's entry: `npx electron examples/electron/main.mjs`. */
import { app, BrowserWindow, ipcMain, protocol } from 'electron/main';
import { startApp } from './app.mjs';

await startApp({ app, BrowserWindow, ipcMain, protocol });
