// `react-native-fs` in memory.
import { fromBase64, toBase64 } from './base64.js';

const files = new Map();
globalThis.appFiles = files;
const later = (task) =>
  new Promise((resolve, reject) => {
    setTimeout(() => {
      try {
        resolve(task());
      } catch (error) {
        reject(error);
      }
    }, 1);
  });
const get = (path) => {
  const bytes = files.get(path);
  if (bytes === undefined) throw new Error(`ENOENT: no such file or directory, open '${path}'`);
  return bytes;
};

export const DocumentDirectoryPath = '/data/app/files';
export const CachesDirectoryPath = '/data/app/cache';
export const mkdir = () => later(() => undefined);
export const readdir = (folder) =>
  later(() =>
    [...files.keys()]
      .filter((path) => path.startsWith(`${folder}/`))
      .map((path) => path.slice(folder.length + 1)),
  );
export const exists = (path) =>
  later(() => files.has(path) || [...files.keys()].some((file) => file.startsWith(`${path}/`)));
export const stat = (path) => later(() => ({ size: get(path).length, mtime: new Date(0) }));
export const read = (path, length, position) =>
  later(() => toBase64(get(path).subarray(position, position + length)));
export const writeFile = (path, contents) =>
  later(() => {
    files.set(path, fromBase64(contents));
  });
export const appendFile = (path, contents) =>
  later(() => {
    const [before, added] = [get(path), fromBase64(contents)];
    const bytes = new Uint8Array(before.length + added.length);
    bytes.set(before);
    bytes.set(added, before.length);
    files.set(path, bytes);
  });
export const moveFile = (from, to) =>
  later(() => {
    if (files.has(to)) throw new Error('An item with that name exists.');
    files.set(to, get(from));
    files.delete(from);
  });
export const unlink = (path) =>
  later(() => {
    get(path);
    files.delete(path);
  });
