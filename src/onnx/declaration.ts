/** TypeScript declarations of what a model takes and gives. */
import { type Signature, type TensorSpec } from '../core/signature.ts';

/** Options of {@link toDeclaration}. */
export interface DeclarationOptions {
  /** Name of the interface; {@link toTypeName} makes one from a file name. */
  readonly name: string;
  /** What the declaration was made from, for its first line. */
  readonly source?: string;
  /** Module that the type helpers are imported from. Default `inlay`. */
  readonly module?: string;
}

/**
 * Writes a declaration from which the compiler knows the names, dtypes and ranks of a model's inputs and outputs:
 * `inlay.load<Digits>('./digits.onnx')`. Whatever a model calls its values, the result is a valid declaration.
 * @returns the text of a `.d.ts` file, with a line end.
 * @throws `RangeError` if `name` is no name that an interface can have.
 */
export function toDeclaration(signature: Signature, options: DeclarationOptions): string {
  const { name, source, module = 'inlay' } = options;
  if (!isTypeName(name)) {
    throw new RangeError(
      `${JSON.stringify(name)} cannot be the name of an interface; pass letters and digits such as Digits.`,
    );
  }
  const { inputs, outputs } = signature;
  const helpers = [
    ...(inputs.length > 0 ? ['FeedOf'] : []),
    'ModelTypes',
    ...(outputs.length > 0 ? ['TensorOf'] : []),
  ];
  return [
    ...(source === undefined ? [] : [`// Made from ${inComment(source)} by \`inlay types\`.`]),
    `import type { ${helpers.join(', ')} } from ${quote(module)};`,
    '',
    `export interface ${name} extends ModelTypes {`,
    ...section('feeds', 'FeedOf', inputs),
    ...section('outputs', 'TensorOf', outputs),
    '}',
    '',
  ].join('\n');
}

/** Makes the name of an interface from a file name: `face-detector-1.2.0.onnx` gives `FaceDetector`. */
export function toTypeName(fileName: string): string {
  const stem = fileName.replace(/\.[^.]*$/, '').replace(/[-_. ]*v?\d+(\.\d+)+$/i, '');
  const words = stem.split(/[^A-Za-z0-9]+/).filter((word) => word !== '');
  const name = words.map((word) => word.slice(0, 1).toUpperCase() + word.slice(1)).join('');
  return isTypeName(name) ? name : `Model${name}`;
}

function section(label: string, helper: string, specs: readonly TensorSpec[]): string[] {
  // `{}` would take any object.
  if (specs.length === 0) return [`  readonly ${label}: Readonly<Record<string, never>>;`];
  return [
    `  readonly ${label}: {`,
    ...specs.flatMap(({ name, dtype, shape }) => [
      `    /** ${inComment(shape === null ? `${dtype}, rank unknown` : `${dtype} [${shape.map((axis) => axis ?? '?').join(', ')}]`)} */`,
      `    readonly ${propertyName(name)}: ${helper}<'${dtype}'${shape === null ? '' : `, ${shape.length}`}>;`,
    ]),
    '  };',
  ];
}

const identifier = /^[\p{ID_Start}$_][\p{ID_Continue}$]*$/u;

function propertyName(name: string): string {
  return identifier.test(name) ? name : quote(name);
}

/** Quotes text; JSON leaves alone what ends a line elsewhere, and lone surrogates cannot be written as UTF-8 at all. */
function quote(text: string): string {
  const escaped = JSON.stringify(text).slice(1, -1).replaceAll('\\"', '"').replaceAll("'", "\\'");
  return `'${escaped.replace(/[\u2028\u2029]/g, toEscape)}'`;
}

/** A model's words may neither end a comment nor begin a line of their own. */
function inComment(text: string): string {
  return text.replace(/[\p{Cc}\p{Cs}\u2028\u2029]/gu, toEscape).replaceAll('*/', '*\\/');
}

function toEscape(char: string): string {
  return `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`;
}

/** Words that an interface cannot be called: the reserved ones (ECMA-262 §12.7.2) and the types of the language. */
const reserved: ReadonlySet<string> = /* @__PURE__ */ new Set(
  (
    'await break case catch class const continue debugger default delete do else enum export extends false finally ' +
    'for function if import in instanceof new null return super switch this throw true try typeof var void while ' +
    'with yield let static implements interface package private protected public any bigint boolean never number ' +
    'object string symbol undefined unknown FeedOf ModelTypes TensorOf'
  ).split(' '),
);

function isTypeName(name: string): boolean {
  return identifier.test(name) && !reserved.has(name);
}
