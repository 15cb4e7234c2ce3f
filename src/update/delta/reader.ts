import { patchError } from './bounds.ts';

/** Reads the fields of a head in turn, and refuses those that cannot be by their names. */
export interface Reader {
  readonly take: (length: number) => Uint8Array;
  /** Reads a byte that lies between two others, or is one of them. */
  readonly byte: (what: string, low: number, high: number) => number;
  /** Reads a varint. */
  readonly integer: (what: string, low?: number, high?: number) => number;
  readonly float64: (what: string, low: number, high: number) => number;
  /** @returns the value. */
  readonly check: (what: string, value: number, low: number, high?: number) => number;
  /** Checks that nothing is left. */
  readonly end: () => void;
}

/** Opens a head. */
export function createReader(bytes: Uint8Array): Reader {
  let at = 0;
  const check: Reader['check'] = (what, value, low, high = low) => {
    if (value >= low && value <= high) return value;
    const range = low === high ? low : `${low} to ${high}`;
    throw patchError(
      `The head of the patch is invalid before byte ${at}: the ${what} is ${value}, not ${range}`,
    );
  };
  const take = (length: number): Uint8Array => {
    at = check('end of a field', at + length, 0, bytes.length);
    return bytes.subarray(at - length, at);
  };
  const next = (): number => {
    at = check('end of a field', at + 1, 0, bytes.length);
    return bytes[at - 1] as number;
  };
  return {
    take,
    check,
    byte: (what, low, high) => check(what, next(), low, high),
    integer: (what, low = 0, high = Number.MAX_SAFE_INTEGER) => {
      let value = 0;
      let byte = 128;
      for (let scale = 1; byte >= 128; scale *= 128) {
        byte = next();
        value += (byte & 127) * scale;
        // As few bytes as it takes, and 8 at most.
        if (scale > 1) check(`last byte of the ${what}`, byte, 1, scale < 2 ** 49 ? 255 : 127);
      }
      return check(what, value, low, high);
    },
    float64: (what, low, high) => {
      const { buffer, byteOffset } = take(8);
      return check(what, new DataView(buffer, byteOffset).getFloat64(0, true), low, high);
    },
    end: () => {
      check('end', at, bytes.length);
    },
  };
}
