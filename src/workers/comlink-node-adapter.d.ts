/** The ES module build of comlink's Node adapter ships without types. */
declare module 'comlink/dist/esm/node-adapter.mjs' {
  import type { Endpoint } from 'comlink';

  /** The part of Node's `MessagePort` and `Worker` that is used. */
  interface NodePort {
    postMessage(message: unknown, transfer?: readonly never[]): void;
    on(event: 'message', listener: (data: unknown) => void): unknown;
    off(event: 'message', listener: (data: unknown) => void): unknown;
  }

  export default function nodeEndpoint(port: NodePort): Endpoint;
}
