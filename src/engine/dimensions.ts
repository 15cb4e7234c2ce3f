import { InputError } from '../core/errors.ts';
import { formatSpec, type TensorSpec } from '../core/signature.ts';

/** Agreement of the symbolic dimensions of one call's inputs. */
export interface Dimensions {
  /** Forgets the sizes of the last call. */
  reset(): void;
  /**
   * Checks a shape against input number `index` and remembers what its symbolic dimensions are.
   * @throws {@link InputError} `ERR_INLAY_FEED_SHAPE`.
   */
  unify(index: number, shape: readonly number[]): void;
  /**
   * Shape that `size` elements of input number `index` must have.
   * @returns `undefined` while more than one of its sizes is open.
   * @throws {@link InputError} `ERR_INLAY_FEED_SHAPE` if no shape fits.
   */
  infer(index: number, size: number): number[] | undefined;
}

/** A dimension as a number: a size, {@link OPEN}, or below it the number of a symbol. */
type Code = number;
const OPEN = -1;
const symbolOf = (code: Code): number => OPEN - 1 - code;

const UNBOUND = -1;

/** Compiles the shapes of a model's inputs. The result is for one call at a time. */
export function createDimensions(inputs: readonly TensorSpec[]): Dimensions {
  const symbols: string[] = [];
  const shapes = inputs.map(({ shape }) => {
    if (shape === null) return undefined;
    return shape.map((dimension): Code => {
      if (dimension === null) return OPEN;
      if (typeof dimension === 'number') return dimension;
      const known = symbols.indexOf(dimension);
      return OPEN - 1 - (known >= 0 ? known : symbols.push(dimension) - 1);
    });
  });
  const sizes = new Float64Array(symbols.length).fill(UNBOUND);
  const owners = new Int32Array(symbols.length);

  const unify = (index: number, shape: readonly number[]): void => {
    const codes = shapes[index];
    if (codes === undefined) return;
    const refuse = (why: string): InputError => {
      const spec = inputs[index] as TensorSpec;
      return new InputError(
        'ERR_INLAY_FEED_SHAPE',
        `Input ${formatSpec(spec)} cannot take shape [${shape.join(', ')}]: ${why}.`,
        { details: { input: spec.name, shape: [...shape] } },
      );
    };
    if (shape.length !== codes.length) throw refuse(`rank ${shape.length} is not ${codes.length}`);
    for (let axis = 0; axis < codes.length; axis += 1) {
      const code = codes[axis] as Code;
      const size = shape[axis] as number;
      if (code >= 0) {
        if (size !== code) throw refuse(`axis ${axis} is ${size}, not ${code}`);
      } else if (code !== OPEN) {
        const symbol = symbolOf(code);
        const earlier = sizes[symbol] as number;
        if (earlier === UNBOUND) {
          sizes[symbol] = size;
          owners[symbol] = index;
        } else if (earlier !== size) {
          const owner = owners[symbol] as number;
          const where = owner === index ? 'an earlier axis' : `input "${inputs[owner]?.name}"`;
          throw refuse(`axis ${axis}, "${symbols[symbol]}", is ${size}, but ${earlier} in ${where}`);
        }
      }
    }
  };

  const infer = (index: number, size: number): number[] | undefined => {
    const codes = shapes[index];
    if (codes === undefined) return [size];
    let product = 1;
    let open: Code | undefined;
    let openAxes = 0;
    for (const code of codes) {
      const known = code >= 0 ? code : code === OPEN ? UNBOUND : (sizes[symbolOf(code)] as number);
      if (known !== UNBOUND) product *= known;
      else if (open === undefined || (open === code && code !== OPEN)) {
        open = code;
        openAxes += 1;
      } else return undefined;
    }
    const side = openAxes === 0 ? 1 : Math.round((size / product) ** (1 / openAxes));
    if (!(product * side ** openAxes === size)) {
      const spec = inputs[index] as TensorSpec;
      throw new InputError(
        'ERR_INLAY_FEED_SHAPE',
        `Input ${formatSpec(spec)} cannot take ${size} elements; it needs ${openAxes === 0 ? '' : 'a multiple of '}${product}.`,
        { details: { input: spec.name, size } },
      );
    }
    return codes.map((code) => {
      if (code >= 0) return code;
      const bound = code === OPEN ? UNBOUND : (sizes[symbolOf(code)] as number);
      return bound === UNBOUND ? side : bound;
    });
  };

  return { reset: () => void sizes.fill(UNBOUND), unify, infer };
}
