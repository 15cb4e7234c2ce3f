// `onnxruntime-react-native`, for models that are the weights of one dense layer as JSON.
const later = (task) =>
  new Promise((resolve, reject) => {
    setTimeout(() => {
      try {
        resolve(task());
      } catch (error) {
        // Native code rejects with strings.
        reject(error.message);
      }
    }, 2);
  });

async function load(path) {
  const { weights, bias } = await later(() => {
    const bytes = globalThis.appFiles.get(path);
    if (bytes === undefined) throw new Error(`Load model from ${path} failed: File doesn't exist`);
    try {
      return JSON.parse(String.fromCharCode(...bytes));
    } catch {
      throw new Error(`Load model from ${path} failed: Protobuf parsing failed.`);
    }
  });
  const meta = (name, width) => [{ name, isTensor: true, type: 'float32', shape: ['batch', width] }];
  return {
    inputMetadata: meta('image', weights.length),
    outputMetadata: meta('logits', bias.length),
    run: (feeds) =>
      later(() => {
        const { cpuData, dims, type } = feeds.image;
        if (cpuData === undefined) throw new Error('Invalid tensor object: missing cpuData');
        if (type !== 'float32') throw new Error('Unexpected input data type');
        if (dims.length !== 2 || dims[1] !== weights.length)
          throw new Error('Got invalid dimensions for input: image');
        const pixels = new Float32Array(cpuData.buffer);
        const data = new Float32Array(dims[0] * bias.length);
        for (let row = 0; row < dims[0]; row += 1) {
          bias.forEach((start, out) => {
            let sum = start;
            weights.forEach((line, i) => (sum += line[out] * pixels[row * weights.length + i]));
            data[row * bias.length + out] = sum;
          });
        }
        return { logits: { type: 'float32', dims: [dims[0], bias.length], data, location: 'cpu' } };
      }),
    release: async () => {},
  };
}

export const InferenceSession = { create: load };
export const listSupportedBackends = () => [{ name: 'cpu' }, { name: 'xnnpack' }];
