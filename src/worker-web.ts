/**
 * `inlay/worker`: the script of the workers that `inlay` starts in a page, for bundlers that have to be told about it. It
 * is not imported.
 * @module inlay/worker
 */
import { createWebLibrary } from './web-libraries.ts';
import { hostInWorker } from './workers/web-host.ts';

hostInWorker(createWebLibrary);
