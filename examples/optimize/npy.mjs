/**
 * Writes an array of floats as NumPy does: format version 1.0.
 * @param {{ shape: readonly number[], data: Float32Array }} tensor float32
 * @returns {Buffer} the file, for little-endian machines
 */
export function toNpy({ shape, data }) {
  const text = `{'descr': '<f4', 'fortran_order': False, 'shape': (${shape.join(', ')},), }`;
  // The numbers begin at a multiple of 64 bytes; the header ends with a line feed.
  const header = `${text.padEnd(64 * Math.ceil((text.length + 11) / 64) - 11)}\n`;
  const length = Buffer.alloc(2);
  length.writeUInt16LE(header.length);
  const start = Buffer.from('\u0093NUMPY\u0001\u0000', 'latin1');
  const numbers = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  return Buffer.concat([start, length, Buffer.from(header, 'latin1'), numbers]);
}
