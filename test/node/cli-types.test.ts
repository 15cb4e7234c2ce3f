import { spawnSync } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { runCommand } from '../../src/cli/program.ts';
import type { Signature, TensorSpec } from '../../src/core/signature.ts';
import { parseModel, signatureOf, toDeclaration, toTypeName } from '../../src/onnx/index.ts';
import { temporaryDirectory, tinyModel } from './server-fixture.ts';

const pathOf = (path: string): string => fileURLToPath(new URL(`../../${path}`, import.meta.url));
const digits = pathOf('examples/digits/digits-1.1.0.onnx');

async function types(
  cwd: string,
  ...args: readonly string[]
): Promise<{ code: number; out: string; err: string }> {
  const out: string[] = [];
  const err: string[] = [];
  const code = await runCommand(['types', ...args], {
    print: (text) => out.push(text),
    printError: (text) => err.push(text),
    env: {},
    cwd,
    interrupted: () => Promise.resolve(),
  });
  return { code, out: out.join('\n'), err: err.join('\n') };
}

/** Compiles files as a user's project would, with `inlay` where its types are. @returns what the compiler complains about. */
async function compile(files: Readonly<Record<string, string>>): Promise<string> {
  const folder = await temporaryDirectory();
  for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text);
  const options = {
    target: 'es2022',
    module: 'nodenext',
    lib: ['es2022'],
    types: [],
    strict: true,
    noUncheckedIndexedAccess: true,
    noEmit: true,
    allowImportingTsExtensions: true,
    paths: { inlay: [pathOf('src/engine/typed.ts')] },
  };
  await writeFile(
    join(folder, 'tsconfig.json'),
    JSON.stringify({ compilerOptions: options, files: Object.keys(files) }),
  );
  const { stdout } = spawnSync(process.execPath, [pathOf('node_modules/typescript/bin/tsc'), '-p', folder], {
    encoding: 'utf8',
  });
  // Sources of the package are checked with libraries of their own.
  return stdout
    .split('\n')
    .filter((line) => Object.keys(files).some((name) => line.includes(name)))
    .join('\n');
}

const feed = (name: string, dtype: TensorSpec['dtype'], shape: TensorSpec['shape']): TensorSpec => ({
  name,
  dtype,
  shape,
});

describe('inlay types', () => {
  it('prints what a model takes and gives', async () => {
    const { code, out } = await types('/', digits);
    expect(code).toBe(0);
    expect(out).toBe(
      [
        '// Made from digits-1.1.0.onnx by `inlay types`.',
        "import type { FeedOf, ModelTypes, TensorOf } from 'inlay';",
        '',
        'export interface Digits extends ModelTypes {',
        '  readonly feeds: {',
        '    /** float32 [batch, 1, 28, 28] */',
        "    readonly image: FeedOf<'float32', 4>;",
        '  };',
        '  readonly outputs: {',
        '    /** float32 [batch, 10] */',
        "    readonly logits: TensorOf<'float32', 2>;",
        '  };',
        '}',
      ].join('\n'),
    );
  });

  it('writes to a file, under the name that is asked for', async () => {
    const cwd = await temporaryDirectory();
    expect(await types(cwd, digits, '--name', 'Reader', '--out', 'reader.d.ts')).toMatchObject({
      code: 0,
      out: 'Wrote reader.d.ts',
    });
    const text = await readFile(join(cwd, 'reader.d.ts'), 'utf8');
    expect(text).toContain('export interface Reader extends ModelTypes {');
    expect(text.endsWith('}\n')).toBe(true);
  });

  it('says what is wrong with a name, a path or a model', async () => {
    const cwd = await temporaryDirectory();
    expect((await types(cwd, digits, '--name', 'two words')).err).toContain(
      '"two words" cannot be the name of an interface',
    );
    expect((await types(cwd, 'no.onnx')).err).toContain('ERR_INLAY_MODEL_NOT_FOUND');
    expect((await types(cwd, digits, '--out', 'missing/x.d.ts')).err).toContain('ERR_INLAY_STORE_IO');
    await writeFile(join(cwd, 'broken.onnx'), (await readFile(digits)).subarray(0, 1000));
    expect((await types(cwd, 'broken.onnx')).err).toMatch(/ERR_INLAY_MODEL_(TRUNCATED|INVALID)/);
  });

  it('makes declarations that the compiler holds calls against', async () => {
    const { out } = await types('/', digits);
    const use = `
      import type { ModelTypes, OutputName, OutputsOf } from 'inlay';
      import type { Digits } from './digits.d.ts';
      declare function run<M extends ModelTypes, const Name extends string = OutputName<M>>(
        feeds: M['feeds'], outputs?: readonly (Name & OutputName<M>)[],
      ): OutputsOf<M, Name>;
      const { logits } = run<Digits>({ image: new Float32Array(784) });
      const [rows, columns]: readonly [number, number] = logits.shape;
      export const best: number | undefined = logits.toArray()[rows - 1]?.[columns - 1];
    `;
    expect(await compile({ 'digits.d.ts': out, 'use.ts': use })).toBe('');
    const wrong = use.replace('{ image: new Float32Array(784) }', '{ picture: new Float32Array(784) }');
    expect(await compile({ 'digits.d.ts': out, 'use.ts': wrong })).toContain('picture');
    const double = use.replace('Float32Array(784)', 'Float64Array(784)');
    expect(await compile({ 'digits.d.ts': out, 'use.ts': double })).toContain('Float64Array');
  });
});

describe('toDeclaration', () => {
  it('is valid whatever a model calls its values', async () => {
    const names = [
      'a b',
      'state/h:0',
      '__proto__',
      'class',
      '1st',
      "it's",
      'back\\slash',
      '*/ export {}; /*',
      'new\nline',
      '\u2028',
      '\u00fcber',
      '',
    ];
    const signature: Signature = {
      inputs: names.map((name) => feed(name, 'int64', [name, null, 3])),
      outputs: names.map((name) => feed(name, 'bool', null)),
    };
    const text = toDeclaration(signature, { name: 'Odd', source: 'odd\n*/.onnx' });
    const keys = names.map((name) => JSON.stringify(name)).join(' | ');
    const use = `
      import type { Odd } from './odd.d.ts';
      type Same<A, B> = [A, B] extends [B, A] ? true : false;
      export const feeds: Same<keyof Odd['feeds'], ${keys}> = true;
      export const outputs: Same<keyof Odd['outputs'], ${keys}> = true;
    `;
    expect(await compile({ 'odd.d.ts': text, 'use.ts': use })).toBe('');
  });

  it('has one line per value, whatever a model calls them', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), fc.string({ unit: 'binary' }), (name, axis) => {
        const text = toDeclaration(
          { inputs: [feed(name, 'string', [axis])], outputs: [] },
          { name: 'Odd', source: axis },
        );
        expect(text.split(/[\n\r\u2028\u2029]/)).toHaveLength(11);
        expect(text.split('*/')).toHaveLength(2);
      }),
    );
  });

  it('takes and gives nothing where a model does', async () => {
    const signature = signatureOf(parseModel(tinyModel('none')));
    const text = toDeclaration(signature, { name: 'None' });
    const use = `
      import type { None } from './none.d.ts';
      export const nothing: None['feeds'] = {};
      // @ts-expect-error: there are no inputs.
      export const something: None['feeds'] = { x: 1 };
    `;
    expect(await compile({ 'none.d.ts': text, 'use.ts': use })).toBe('');
  });

  it('refuses a name that no interface can have', () => {
    for (const name of ['', 'a-b', '1a', 'class', 'string', 'TensorOf', 'a\n']) {
      expect(() => toDeclaration({ inputs: [], outputs: [] }, { name })).toThrow(RangeError);
    }
  });
});

it.each([
  ['digits.onnx', 'Digits'],
  ['face-detector-1.2.0.onnx', 'FaceDetector'],
  ['silero_vad_v5.1.onnx', 'SileroVad'],
  ['resnet50.onnx', 'Resnet50'],
  ['3d.onnx', 'Model3d'],
  ['string.onnx', 'String'],
  ['\u6a21\u578b.onnx', 'Model'],
])('makes a name for an interface from %s', (file, name) => {
  expect(toTypeName(file)).toBe(name);
});
