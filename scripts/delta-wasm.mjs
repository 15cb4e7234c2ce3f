/**
 * Assembles the WebAssembly twin of the two hot loops of patches (src/update/delta/hot.ts), and writes it into
 * src/update/delta/wasm-module.ts. Plain WebAssembly 1.0: no SIMD, no imports, one memory. Run it after a change here:
 * `node scripts/delta-wasm.mjs`.
 */

import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** Where things lie in the memory, bytes. */
const CURSOR = 0;
const FIRST = 64;
const EXTRA = 320;
const PRODUCTS = 512;
const VALUES = 4096;
const OWN_SYMBOLS = 69_632;
const OWN_STEPS = 73_728;
const ROWS = 74_752;
const PAYLOAD = 98_304;
const SYMBOLS = 327_680;
const STEPS = 589_824;
const PAGES = 10;

const I32 = 0x7f;
const F64 = 0x7c;
const EMPTY = 0x40;

const unsigned = (value) => {
  const bytes = [];
  for (; value > 127; value >>>= 7) bytes.push((value & 127) | 128);
  return [...bytes, value];
};
const signed = (value) => {
  const bytes = [];
  for (; value < -64 || value > 63; value >>= 7) bytes.push((value & 127) | 128);
  return [...bytes, value & 127];
};
const vector = (items) => [...unsigned(items.length), ...items.flat()];
const section = (id, bytes) => [id, ...vector(bytes)];
const text = (name) => vector([...name].map((letter) => letter.charCodeAt(0)));

const int = (value) => [0x41, ...signed(value)];
const binary = (code) => (a, b) => [...a, ...b, code];
const equal = binary(0x46);
const lessSigned = binary(0x48);
const lessUnsigned = binary(0x49);
const greaterSigned = binary(0x4a);
const add = binary(0x6a);
const subtract = binary(0x6b);
const multiply = binary(0x6c);
const and = binary(0x71);
const or = binary(0x72);
const xor = binary(0x73);
const left = binary(0x74);
const right = binary(0x75);
const rightUnsigned = binary(0x76);
const addDouble = binary(0xa0);
const multiplyDouble = binary(0xa2);
const rightUnsignedLong = binary(0x88);
const toLong = (a) => [...a, 0xad];
const toInt = (a) => [...a, 0xa7];
const toDouble = (a) => [...a, 0xbb];
const toFloat = (a) => [...a, 0xb6];
const load =
  (code) =>
  (at, offset = 0) => [...at, code, 0, ...unsigned(offset)];
const load32 = load(0x28);
const load64 = load(0x29);
const loadFloat = load(0x2a);
const loadDouble = load(0x2b);
const load8 = load(0x2d);
const load8Signed = load(0x2c);
const load16 = load(0x2f);
const store = (code) => (at, value, offset) => [...at, ...value, code, 0, ...unsigned(offset)];
const store32 = store(0x36);
const storeFloat = store(0x38);
const select = (condition, a, b) => [...a, ...b, ...condition, 0x1b];
const when = (condition, ...then) => [...condition, 0x04, EMPTY, ...then.flat(), 0x0b];
/** Goes through the body, and again as long as the condition holds. */
const repeat = (body, condition) => [0x03, EMPTY, ...body.flat(), ...condition, 0x0d, 0, 0x0b];

/** @returns a function: parameters and locals by name; `body` gets what reads and what sets them. */
function assemble(parameters, locals, body) {
  const names = [...Object.keys(parameters), ...Object.keys(locals)];
  const get = Object.fromEntries(names.map((name, i) => [name, [0x20, i]]));
  const set = (name, value) => [...value, 0x21, names.indexOf(name)];
  return {
    type: [0x60, ...vector(Object.values(parameters).map((type) => [type])), 0],
    code: vector([...vector(runsOf(Object.values(locals))), ...body(get, set).flat(), 0x0b]),
  };
}

/** @returns how many there are in a row of each. */
function runsOf(types) {
  const starts = types.flatMap((type, i) => (type === types[i - 1] ? [] : [i]));
  return starts.map((start, i) => [(starts[i + 1] ?? types.length) - start, types[start]]);
}

const cursor = ['next', 'after', 'word', 'bit', 'fault'];
const ints = (...names) => Object.fromEntries(names.map((name) => [name, I32]));
const parameters = ints('end', 'row', 'column', 'width', 'bias', 'columns', 'symbols', 'steps', 'alphabet');
const locals = ints(...cursor, 'at', 'scale', 'context', 'symbol', 'step', 'state', 'isLow');

const open = (set) => cursor.map((name, i) => set(name, load32(int(0), CURSOR + 4 * i)));
const close = (get) => cursor.map((name, i) => store32(int(0), get[name], CURSOR + 4 * i));

const scaleOfRow = (get, set) => set('scale', add(load8Signed(get.row, ROWS), get.bias));
const nextRow = (get, set, ...more) =>
  when(
    equal(get.column, get.width),
    set('column', int(0)),
    set('row', add(get.row, int(1))),
    scaleOfRow(get, set),
    ...more,
  );
const clamp = (get, set) => [
  set('context', select(lessSigned(get.context, int(0)), int(0), get.context)),
  set('context', select(greaterSigned(get.context, int(63)), int(63), get.context)),
];
const decode = (get, set) => [
  set('step', add(get.steps, multiply(get.context, get.alphabet))),
  set('state', and(get.next, int(4095))),
  set('symbol', load8(add(add(get.symbols, left(get.context, int(12))), get.state))),
  set('step', left(add(get.step, get.symbol), int(2))),
  set('state', subtract(get.state, load16(get.step, 2))),
  set('step', load16(get.step)),
  set('fault', or(get.fault, subtract(get.step, int(1)))),
  set('state', add(multiply(get.step, rightUnsigned(get.next, int(12))), get.state)),
  // Without a branch, as nobody can foresee it.
  set('isLow', lessSigned(get.state, int(32_768))),
  set('state', select(get.isLow, or(left(get.state, int(16)), load16(get.word, PAYLOAD)), get.state)),
  set('word', add(get.word, left(get.isLow, int(1)))),
  set('next', get.after),
  set('after', get.state),
];
const advance = (get, set) => [set('column', add(get.column, int(1))), set('at', add(get.at, int(4)))];

const flipped = (value) => xor(value, and(right(value, int(31)), int(0x7fffffff)));

const differences = assemble(
  { ...parameters, ...ints('exponents', 'base', 'raw') },
  { ...locals, ...ints('bits', 'extra', 'ordered') },
  (get, set) => [
    ...open(set),
    scaleOfRow(get, set),
    repeat(
      [
        nextRow(get, set),
        set(
          'context',
          subtract(
            add(get.scale, load8Signed(add(get.columns, get.column))),
            and(rightUnsigned(load32(add(get.base, get.at)), int(22)), get.exponents),
          ),
        ),
        ...clamp(get, set),
        ...decode(get, set),
        when(
          get.symbol,
          set(
            'bits',
            toInt(
              rightUnsignedLong(
                load64(add(get.raw, rightUnsigned(get.bit, int(3)))),
                toLong(and(get.bit, int(7))),
              ),
            ),
          ),
          set('extra', load8(get.symbol, EXTRA)),
          set(
            'step',
            add(
              load32(left(get.symbol, int(2)), FIRST),
              and(get.bits, subtract(left(int(1), get.extra), int(1))),
            ),
          ),
          set('bit', add(add(get.bit, get.extra), int(1))),
          set('ordered', load32(get.at, VALUES)),
          set(
            'ordered',
            add(
              flipped(get.ordered),
              select(and(rightUnsigned(get.bits, get.extra), int(1)), subtract(int(0), get.step), get.step),
            ),
          ),
          store32(get.at, flipped(get.ordered), VALUES),
        ),
        ...advance(get, set),
      ],
      lessUnsigned(get.at, get.end),
    ),
    ...close(get),
  ],
);

const updates = assemble({ ...parameters, gains: I32 }, { ...locals, gain: F64 }, (get, set) => {
  const gainOfRow = when(get.gains, set('gain', toDouble(loadFloat(add(get.gains, left(get.row, int(2)))))));
  return [
    ...open(set),
    scaleOfRow(get, set),
    set('gain', toDouble([0x43, 0, 0, 0x80, 0x3f])),
    gainOfRow,
    repeat(
      [
        nextRow(get, set, gainOfRow),
        set('context', add(get.scale, load8Signed(add(get.columns, get.column)))),
        ...clamp(get, set),
        ...decode(get, set),
        storeFloat(
          get.at,
          toFloat(
            addDouble(
              multiplyDouble(toDouble(loadFloat(get.at, VALUES)), get.gain),
              loadDouble(left(get.symbol, int(3)), PRODUCTS),
            ),
          ),
          VALUES,
        ),
        ...advance(get, set),
      ],
      lessUnsigned(get.at, get.end),
    ),
    ...close(get),
  ];
});

/** @returns the module. */
function assembleModule() {
  const functions = [differences, updates];
  const exported = [
    [...text('memory'), 2, 0],
    [...text('differences'), 0, 0],
    [...text('updates'), 0, 1],
  ];
  return Uint8Array.from([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, vector(functions.map(({ type }) => type))),
    ...section(3, vector(functions.map((_, i) => [i]))),
    ...section(5, vector([[0, PAGES]])),
    ...section(7, vector(exported)),
    ...section(10, vector(functions.map(({ code }) => code))),
  ]);
}

/** @returns the source of src/update/delta/wasm-module.ts. */
export function moduleSource() {
  const places = { FIRST, EXTRA, PRODUCTS, VALUES, OWN_SYMBOLS, OWN_STEPS, ROWS, PAYLOAD, SYMBOLS, STEPS };
  return [
    '/** Made by scripts/delta-wasm.mjs: the module, and where things lie in its memory, bytes. */',
    '',
    '/** The module in hex, which is compressed better than base64. */',
    `export const MODULE: string =\n  '${Buffer.from(assembleModule()).toString('hex')}';`,
    '// Places in its memory. The cursor is at 0; numbers of the base come after the values. What overruns the payload by',
    '// a stretch reads what comes after.',
    ...Object.entries(places).flatMap(([name, at]) => [
      `/** Place of ${name}, bytes. */`,
      `export const ${name}_AT = ${at};`,
    ]),
    '',
  ].join('\n');
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  writeFileSync(new URL('../src/update/delta/wasm-module.ts', import.meta.url), moduleSource());
}
