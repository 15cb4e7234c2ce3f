/** A link's end over the channel between a process and its child. */
import type { Serializable } from 'node:child_process';
import type { Endpoint } from './link.ts';

/** One end of the channel: a `ChildProcess`, or `process` in the child. Its serialization is `advanced`. */
export interface IpcPort {
  /** Throws when the message cannot be cloned. */
  send(message: Serializable, onSent: (error: Error | null) => void): unknown;
  on(event: 'message', listener: (message: unknown) => void): unknown;
  off(event: 'message', listener: (message: unknown) => void): unknown;
}

type Listener = Parameters<Endpoint['addEventListener']>[1];

/** Adapts a channel for a link. Buffers are copied, never handed over. */
export function ipcEndpoint(port: IpcPort): Endpoint {
  const adapted = new Map<Listener, (message: unknown) => void>();
  return {
    postMessage: (message: Serializable) => {
      // That the channel is closed is known from the end of the process.
      port.send(message, () => {});
    },
    addEventListener: (_type, listener) => {
      const adapter = (message: unknown): void => {
        const event = { data: owned(message) } as MessageEvent;
        if (typeof listener === 'function') listener(event);
        else listener.handleEvent(event);
      };
      adapted.set(listener, adapter);
      port.on('message', adapter);
    },
    removeEventListener: (_type, listener) => {
      const adapter = adapted.get(listener);
      if (adapter === undefined) return;
      adapted.delete(listener);
      port.off('message', adapter);
    },
  };
}

/** Typed arrays arrive as views on the bytes of the whole message; each gets memory of its own. */
function owned(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  if (ArrayBuffer.isView(value)) return ownedView(value);
  const parts = value as Record<string, unknown>;
  for (const key in parts) {
    const part = parts[key];
    if (typeof part === 'object') parts[key] = owned(part);
  }
  return parts;
}

function ownedView(view: ArrayBufferView): ArrayBufferView {
  const { buffer, byteOffset, byteLength, constructor } = view;
  const View = (Buffer.isBuffer(view) ? Uint8Array : constructor) as new (
    buffer: ArrayBufferLike,
  ) => ArrayBufferView;
  return byteLength === buffer.byteLength && View === constructor
    ? view
    : new View(buffer.slice(byteOffset, byteOffset + byteLength));
}
