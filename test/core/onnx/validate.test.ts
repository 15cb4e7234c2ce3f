import { describe, expect, it } from 'vitest';
import fc from 'fast-check';
import { ModelError } from '../../../src/core/errors.ts';
import { tensorFrom } from '../../../src/core/tensor.ts';
import type {
  FunctionProto,
  GraphProto,
  ModelProto,
  NodeProto,
  TensorProto,
} from '../../../src/onnx/messages.ts';
import { encodeModel, parseModel } from '../../../src/onnx/model.ts';
import { toTensorProto } from '../../../src/onnx/tensors.ts';
import { assertValid, validateModel, type ValidateOptions } from '../../../src/onnx/validate.ts';
import { sampleModel } from './sample.ts';

const float = { tensorType: { elemType: 1 } };
const node = (opType: string, input: readonly string[], output: readonly string[], more = {}): NodeProto => ({
  opType,
  input,
  output,
  name: output.join(),
  attribute: [],
  ...more,
});
const relu = node('Relu', ['x'], ['y']);
const graphOf = (nodes: readonly NodeProto[], more: Partial<GraphProto> = {}): GraphProto => ({
  node: nodes,
  initializer: [],
  input: [{ name: 'x', type: float }],
  output: [{ name: 'y' }],
  ...more,
});
const modelOf = (graph: GraphProto, more: Partial<ModelProto> = {}): ModelProto => ({
  irVersion: 8,
  graph,
  opsetImport: [{ version: 17 }],
  ...more,
});
const withConstant = (...constants: readonly TensorProto[]): ModelProto =>
  modelOf(graphOf([relu], { initializer: constants }));
const ifNode = (...bodies: readonly GraphProto[]): NodeProto =>
  node('If', ['x'], ['y'], { attribute: bodies.map((g, i) => ({ name: `branch${i}`, g })) });
const body = (nodes: readonly NodeProto[], output: string, more: Partial<GraphProto> = {}): GraphProto =>
  graphOf(nodes, { input: [], output: [{ name: output }], ...more });
const functionOf = (
  name: string,
  nodes: readonly NodeProto[],
  more: Partial<FunctionProto> = {},
): FunctionProto => ({
  name,
  domain: 'l',
  input: ['x'],
  output: ['y'],
  node: nodes,
  opsetImport: [{ version: 17 }, { domain: 'l', version: 1 }],
  ...more,
});
const withFunctions = (functions: readonly FunctionProto[], call: NodeProto): ModelProto =>
  modelOf(graphOf([call]), { functions, opsetImport: [{ version: 17 }, { domain: 'l', version: 1 }] });
const local = { domain: 'l' };
const call = node('F', ['x'], ['y'], local);

const found = (model: ModelProto, options?: ValidateOptions): string[] =>
  validateModel(model, options).map(({ severity, code, path }) => `${severity} ${code} ${path}`);

const external = (...entries: readonly (readonly [string, string])[]): TensorProto => ({
  name: 'w',
  dims: [2],
  dataType: 1,
  dataLocation: 1,
  externalData: entries.map(([key, value]) => ({ key, value })),
});

describe('validateModel', () => {
  it('finds nothing in models that are well formed', () => {
    expect(validateModel(sampleModel())).toEqual([]);
    const defaults = graphOf([node('Add', ['x', 'w'], ['y'])], {
      input: ['x', 'w'].map((name) => ({ name, type: float })),
      initializer: [toTensorProto('w', tensorFrom('float32', [1]))],
    });
    expect(validateModel(modelOf(defaults, { irVersion: 13, opsetImport: [{ version: 26 }] }))).toEqual([]);
    const branches = ifNode(body([node('Exp', ['x'], ['a'])], 'a'), body([node('Abs', ['x'], ['a'])], 'a'));
    expect(validateModel(modelOf(graphOf([branches])))).toEqual([]);
    expect(validateModel(withFunctions([functionOf('F', [relu])], call))).toEqual([]);
  });

  it.each<[string, ModelProto, string]>([
    [
      'a value that nothing defines',
      modelOf(graphOf([node('Add', ['x', 'q'], ['y'])])),
      'value-unknown graph.node[0].input[1]',
    ],
    [
      'nodes that read each other',
      modelOf(graphOf([node('Add', ['x', 'a'], ['y']), node('Exp', ['y'], ['a'])])),
      'value-circular graph.node[0].input[1]',
    ],
    [
      'a node that reads itself through its body',
      modelOf(graphOf([ifNode(body([node('Abs', ['y'], ['b'])], 'b'))])),
      'value-circular graph.node[0].attribute[0].g.node[0].input[0]',
    ],
    [
      'a value that is defined twice',
      modelOf(graphOf([relu, { ...relu, name: 'again' }])),
      'value-redefined graph.node[1].output[0]',
    ],
    [
      'two constants of one name',
      withConstant(...['w', 'w'].map((name) => toTensorProto(name, tensorFrom('float32', 1)))),
      'value-redefined graph.initializer[1]',
    ],
    [
      'an output that nothing defines',
      modelOf(graphOf([relu], { output: [{ name: 'z' }] })),
      'output-undefined graph.output[0]',
    ],
    [
      'an input without a type',
      modelOf(graphOf([relu], { input: [{ name: 'x' }] })),
      'input-untyped graph.input[0]',
    ],
    [
      'two nodes of one name',
      modelOf(graphOf([{ ...relu, name: 'n' }, node('Abs', ['y'], ['z'], { name: 'n' })])),
      'node-duplicate graph.node[1]',
    ],
    [
      'a node without an operator',
      modelOf(graphOf([node('', ['x'], ['y'])])),
      'operator-missing graph.node[0]',
    ],
    [
      'a domain that is not imported',
      modelOf(graphOf([node('Gelu', ['x'], ['y'], { domain: 'com.microsoft' })])),
      'opset-missing graph.node[0]',
    ],
    [
      'an attribute that comes twice',
      modelOf(graphOf([node('Abs', ['x'], ['y'], { attribute: [{ name: 'a' }, { name: 'a' }] })])),
      'attribute-duplicate graph.node[0].attribute[1]',
    ],
    [
      'a reference outside of functions',
      modelOf(graphOf([node('Abs', ['x'], ['y'], { attribute: [{ name: 'a', refAttrName: 'b' }] })])),
      'attribute-reference graph.node[0].attribute[0]',
    ],
    [
      'a body that gives back what is around it',
      modelOf(graphOf([ifNode(body([], 'x'))])),
      'output-undefined graph.node[0].attribute[0].g.output[0]',
    ],
    [
      'a body that hides a value',
      modelOf(graphOf([ifNode(body([node('Abs', ['x'], ['x'])], 'x'))])),
      'value-shadowed graph.node[0].attribute[0].g.node[0].output[0]',
    ],
    ['an IR version that is too new', modelOf(graphOf([relu]), { irVersion: 14 }), 'ir-version ir_version'],
    [
      'an operator set that is too new',
      modelOf(graphOf([relu]), { opsetImport: [{ version: 27 }] }),
      'opset-version opset_import[0]',
    ],
    [
      'a payload that is too short',
      withConstant({ name: 'w', dims: [3], dataType: 1, rawData: new Uint8Array(8) }),
      'tensor-invalid graph.initializer[0]',
    ],
    [
      'a list that is too long',
      withConstant({ name: 'w', dims: [1], dataType: 1, floatData: Float32Array.of(1, 2) }),
      'tensor-invalid graph.initializer[0]',
    ],
    [
      'a payload of half an element',
      withConstant({ name: 'w', dims: [1], dataType: 1, rawData: new Uint8Array(3) }),
      'tensor-invalid graph.initializer[0]',
    ],
    [
      'a shape beyond all numbers',
      withConstant({ name: 'w', dims: [2 ** 40, 2 ** 40], dataType: 1 }),
      'tensor-invalid graph.initializer[0]',
    ],
    [
      'a dtype that is unknown',
      withConstant({ name: 'w', dims: [1], dataType: 99 }),
      'tensor-unsupported graph.initializer[0]',
    ],
    [
      'a tensor attribute that does not fit',
      modelOf(
        graphOf([
          relu,
          node('Constant', [], ['c'], { attribute: [{ name: 'value', t: { dims: [2], dataType: 6 } }] }),
        ]),
      ),
      'tensor-invalid graph.node[1].attribute[0].t',
    ],
    [
      'a sparse constant without indices',
      modelOf(
        graphOf([relu], {
          sparseInitializer: [{ dims: [4], values: { name: 's', dims: [0], dataType: 1 } }],
        }),
      ),
      'tensor-invalid graph.sparse_initializer[0]',
    ],
    [
      'an external path that leaves the folder',
      withConstant(external(['location', '../w.bin'])),
      'external-invalid graph.initializer[0]',
    ],
    [
      'an external length that does not fit',
      withConstant(external(['location', 'w.bin'], ['length', '7'])),
      'external-invalid graph.initializer[0]',
    ],
    [
      'a function that is defined twice',
      withFunctions([functionOf('F', [relu]), functionOf('F', [relu])], call),
      'function-duplicate functions[1]',
    ],
    [
      'a call with too many inputs',
      withFunctions([functionOf('F', [relu])], node('F', ['x', 'x'], ['y'], local)),
      'function-arity graph.node[0]',
    ],
    [
      'a call with too many outputs',
      withFunctions([functionOf('F', [relu])], node('F', ['x'], ['y', 'z'], local)),
      'function-arity graph.node[0]',
    ],
    [
      'a function that calls itself',
      withFunctions([functionOf('F', [call])], call),
      'function-recursive functions[0]',
    ],
    [
      'functions that call each other from a body',
      withFunctions(
        [functionOf('F', [ifNode(body([node('G', ['x'], ['b'], local)], 'b'))]), functionOf('G', [call])],
        call,
      ),
      'function-recursive functions[0]',
    ],
    [
      'a function that gives nothing',
      withFunctions([functionOf('F', [relu], { output: ['z'] })], call),
      'output-undefined functions[0].output[0]',
    ],
    [
      'a function that reads what is around its call',
      withFunctions([functionOf('F', [node('Abs', ['w'], ['y'])])], call),
      'value-unknown functions[0].node[0].input[0]',
    ],
    [
      'a function without the operator set that it uses',
      withFunctions([functionOf('F', [relu], { opsetImport: [] })], call),
      'opset-missing functions[0].node[0]',
    ],
    [
      'a reference to an attribute that a function has not',
      withFunctions(
        [
          functionOf('F', [node('Abs', ['x'], ['y'], { attribute: [{ name: 'a', refAttrName: 'b' }] })], {
            attribute: ['c'],
          }),
        ],
        call,
      ),
      'attribute-reference functions[0].node[0].attribute[0]',
    ],
  ])('finds %s, and nothing else', (_, model, problem) => {
    expect(found(model)).toEqual([`error ${problem}`]);
    expect(() => assertValid(model)).toThrow(ModelError);
  });

  it.each<[string, ModelProto, string]>([
    [
      'nodes without names, once',
      modelOf(
        graphOf(
          [relu, node('Exp', ['y'], ['a']), node('Exp', ['y'], ['b'])].map((one) => ({ ...one, name: '' })),
        ),
      ),
      'node-unnamed graph.node',
    ],
    [
      'a value that is read too early',
      modelOf(graphOf([node('Abs', ['a'], ['y']), node('Exp', ['x'], ['a'])])),
      'value-unordered graph.node[0].input[0]',
    ],
    [
      'a body that reads what comes later',
      modelOf(graphOf([ifNode(body([node('Abs', ['z'], ['b'])], 'b')), node('Exp', ['x'], ['z'])])),
      'value-unordered graph.node[0].attribute[0].g.node[0].input[0]',
    ],
    [
      'an operator set of before 7',
      modelOf(graphOf([relu]), { opsetImport: [{ version: 6 }] }),
      'opset-version opset_import[0]',
    ],
    [
      'an operator set that is imported twice',
      modelOf(graphOf([relu]), { opsetImport: [{ version: 17 }, { domain: 'ai.onnx', version: 17 }] }),
      'opset-duplicate opset_import[1]',
    ],
    [
      'NaN in float32',
      withConstant(toTensorProto('w', tensorFrom('float32', [1, Number.NaN]))),
      'tensor-not-finite graph.initializer[0]',
    ],
    [
      'infinity among others in float16',
      withConstant(toTensorProto('w', tensorFrom('float16', [1, -Infinity]))),
      'tensor-not-finite graph.initializer[0]',
    ],
    [
      'NaN in bfloat16',
      withConstant({ name: 'w', dims: [1], dataType: 16, rawData: Uint8Array.of(0xc0, 0x7f) }),
      'tensor-not-finite graph.initializer[0]',
    ],
  ])('warns of %s', (_, model, problem) => {
    expect(found(model)).toEqual([`warning ${problem}`]);
    expect(() => {
      assertValid(model);
    }).not.toThrow();
  });

  it('takes a single infinity for a mask, and looks at no weights if told not to', () => {
    expect(found(withConstant(toTensorProto('w', tensorFrom('float32', -Infinity))))).toEqual([]);
    const shallow = { readsWeights: false };
    expect(found(withConstant(toTensorProto('w', tensorFrom('float32', [Number.NaN]))), shallow)).toEqual([]);
    const short = { name: 'w', dims: [3], dataType: 1, rawData: new Uint8Array(8) };
    expect(found(withConstant(short), shallow)).toEqual(['error tensor-invalid graph.initializer[0]']);
  });

  it('holds external constants against the files that are there', () => {
    const model = withConstant(external(['location', 'w.bin'], ['offset', '4']));
    const problem = ['error external-missing graph.initializer[0]'];
    expect(found(model)).toEqual([]);
    expect(found(model, { files: new Map([['w.bin', 12]]) })).toEqual([]);
    expect(found(model, { files: new Map([['w.bin', 11]]) })).toEqual(problem);
    expect(found(model, { files: new Map() })).toEqual(problem);
  });

  it('tells the byte of a payload in the file', () => {
    const bytes = encodeModel(
      withConstant({ name: 'w', dims: [3], dataType: 1, rawData: Uint8Array.of(1, 2, 3, 4) }),
    );
    const within = new Uint8Array(bytes.length + 9);
    within.set(bytes, 9);
    const source = within.subarray(9);
    const [problem] = validateModel(parseModel(source), { source });
    expect(Array.from(source.subarray(problem?.offset).subarray(0, 4))).toEqual([1, 2, 3, 4]);
  });

  it('finds all problems, and names the first with their number when it throws', () => {
    const model = modelOf(graphOf([node('Add', ['p', 'q'], ['y'])]), { irVersion: 99 });
    expect(found(model)).toHaveLength(3);
    expect(() => assertValid(model)).toThrow(
      expect.objectContaining({
        code: 'ERR_INLAY_MODEL_UNSUPPORTED',
        message:
          'The model is not valid at ir_version, the first of 3 errors: the IR version is 99, and onnxruntime 1.30 takes 3 to 13.',
        details: { problems: 3, problem: 'ir-version', path: 'ir_version' },
      }),
    );
  });

  it('stops at bodies that nest deeper than a file can hold', () => {
    let inner = body([node('Abs', ['x'], ['a'])], 'a');
    for (let i = 0; i < 20_000; i += 1)
      inner = { ...body([{ ...ifNode(inner), output: [`v${i}`] }], `v${i}`) };
    expect(found(modelOf(graphOf([ifNode(inner)]))).filter((line) => line.includes('nesting'))).toHaveLength(
      1,
    );
  });

  it('gives problems, and throws nothing, for whatever can be parsed', () => {
    const sample = encodeModel(sampleModel());
    let parsed = 0;
    fc.assert(
      fc.property(fc.nat({ max: sample.length - 1 }), fc.integer({ min: 1, max: 255 }), (at, flip) => {
        const corrupt = sample.slice();
        corrupt[at] = (corrupt[at] as number) ^ flip;
        let model: ModelProto;
        try {
          model = parseModel(corrupt);
        } catch {
          return;
        }
        parsed += 1;
        validateModel(model, { source: corrupt, files: new Map() });
      }),
      { numRuns: 200 },
    );
    expect(parsed).toBeGreaterThan(0);
  });
});
