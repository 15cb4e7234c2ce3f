/** What the page gets of the main process: two questions, and nothing of Node or of Electron. */
const { contextBridge, ipcRenderer } = require('electron');

contextBridge.exposeInMainWorld('digits', {
  read: ({ data, width, height }) => ipcRenderer.invoke('digits:read', { data, width, height }),
  info: () => ipcRenderer.invoke('digits:info'),
});
