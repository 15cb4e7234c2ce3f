/** The worker of `inlay`, whose GPU device can be taken away. */
import 'inlay/worker';

interface Device {
  destroy(): void;
}
interface Adapter {
  requestDevice(descriptor?: object): Promise<Device>;
}

const devices: Device[] = [];
const { GPUAdapter } = globalThis as unknown as { GPUAdapter: { readonly prototype: Adapter } };
const { requestDevice } = GPUAdapter.prototype;
GPUAdapter.prototype.requestDevice = async function (descriptor) {
  const device = await requestDevice.call(this, descriptor);
  devices.push(device);
  return device;
};

globalThis.addEventListener('message', ({ data }: MessageEvent<unknown>) => {
  if (data === 'destroy') for (const device of devices) device.destroy();
  if (data === 'ping') globalThis.postMessage('pong');
});
