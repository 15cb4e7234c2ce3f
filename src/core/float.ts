/** Conversions between float64 numbers and the bit patterns of 16-bit floats. */

const word = new DataView(new ArrayBuffer(4));

/**
 * Rounds a number to IEEE 754 binary16, ties to even.
 * @returns the 16 bits, sign first. Overflow gives infinity.
 */
export function toFloat16Bits(value: number): number {
  word.setFloat32(0, value);
  const bits = word.getUint32(0);
  const sign = (bits >>> 16) & 0x8000;
  if (Number.isNaN(value)) return sign | 0x7e00;
  const magnitude = Math.abs(value);
  if (magnitude >= 65520) return sign | 0x7c00;
  if (magnitude < 2 ** -14) return sign | roundHalfEven(magnitude * 2 ** 24);
  const exponent = Math.floor(Math.log2(magnitude));
  // log2 may be off by one next to a power of two; the fraction corrects it.
  const fraction = magnitude / 2 ** exponent;
  const e = fraction >= 2 ? exponent + 1 : fraction < 1 ? exponent - 1 : exponent;
  return sign | (((e + 15) << 10) + roundHalfEven((magnitude / 2 ** e - 1) * 1024));
}

/**
 * Rounds float32 numbers to IEEE 754 binary16, ties to even: {@link toFloat16Bits} of each, in one pass over the bits.
 * @returns Bit patterns in memory of their own.
 */
export function toFloat16Array(values: Float32Array): Uint16Array<ArrayBuffer> {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const halves = new Uint16Array(values.length);
  for (let i = 0; i < words.length; i += 1) {
    const bits = words[i] as number;
    const magnitude = bits & 0x7fff_ffff;
    const sign = (bits >>> 16) & 0x8000;
    // 2^-14 and 65520 as float32: what lies between becomes a normal number. The exponent loses 127 - 15, the fraction
    // 13 bits; a carry out of it is a step of the exponent.
    halves[i] =
      magnitude >= 0x3880_0000 && magnitude < 0x477f_f000
        ? sign | ((magnitude - 0x3800_0000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13)
        : magnitude < 0x3300_0000
          ? sign
          : toFloat16Bits(values[i] as number);
  }
  return halves;
}

/**
 * Reads IEEE 754 binary16 bits: {@link fromFloat16Bits} of each, in one pass over the bits.
 * @returns Numbers in memory of their own.
 */
export function fromFloat16Array(halves: Uint16Array): Float32Array<ArrayBuffer> {
  const values = new Float32Array(halves.length);
  const words = new Uint32Array(values.buffer);
  for (let i = 0; i < halves.length; i += 1) {
    const bits = halves[i] as number;
    const exponent = bits & 0x7c00;
    // Normal numbers: the exponent gains 127 - 15, the fraction 13 bits.
    if (exponent === 0 || exponent === 0x7c00) values[i] = fromFloat16Bits(bits);
    else words[i] = ((bits & 0x8000) << 16) | (((bits & 0x7fff) << 13) + 0x3800_0000);
  }
  return values;
}

/** Value of IEEE 754 binary16 bits. */
export function fromFloat16Bits(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >>> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0x1f) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/**
 * Rounds a number to float32, and that to bfloat16, ties to even.
 * @returns the 16 bits, sign first.
 */
export function toBfloat16Bits(value: number): number {
  word.setFloat32(0, value);
  const bits = word.getUint32(0);
  if (Number.isNaN(value)) return (bits >>> 16) | 0x40;
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

/** Value of bfloat16 bits. */
export function fromBfloat16Bits(bits: number): number {
  word.setUint32(0, bits << 16);
  return word.getFloat32(0);
}

function roundHalfEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor;
}
