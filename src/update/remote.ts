/** Everything that talks to a network, in one module, so that entry points can load it when it is first needed. */
export { fetchBytes } from './fetch.ts';
export { createUpdateClient } from './update-client.ts';
