/**
 * `inlay/host`: for the script of a worker that hosts a backend of the app's choice.
 * @module inlay/host
 */
export { hostInWorker } from './workers/web-host.ts';
