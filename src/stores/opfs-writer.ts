/**
 * The script of the worker that writes blobs for `openOpfsStore`. It acts on its thread, so only start it.
 * @module
 */
import { beginBlob } from './opfs-file.ts';
import { serveWriters } from './opfs-link.ts';
import { openPartFile } from './opfs-part-file.ts';

serveWriters(globalThis, beginBlob, openPartFile);
