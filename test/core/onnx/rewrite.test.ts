import { describe, expect, it } from 'vitest';
import fc from 'fast-check';
import { tensorFrom } from '../../../src/core/tensor.ts';
import { createGraph } from '../../../src/onnx/build.ts';
import type { GraphProto, ModelProto, NodeProto } from '../../../src/onnx/messages.ts';
import { encodeModel, parseModel } from '../../../src/onnx/model.ts';
import { rewriteModel, type Rewriter } from '../../../src/onnx/rewrite.ts';
import { bodiesOf } from '../../../src/onnx/walk.ts';
import { sampleModel } from './sample.ts';

const one = tensorFrom('float32', 1);
const node = (opType: string, input: readonly string[], ...output: string[]): NodeProto => ({
  opType,
  input,
  output,
  attribute: [],
});
const graphOf = (nodes: readonly NodeProto[], outputs: readonly string[] = []): GraphProto => ({
  node: nodes,
  initializer: [],
  input: [],
  output: outputs.map((name) => ({ name })),
});
const modelOf = (graph: GraphProto, irVersion = 8): ModelProto => ({
  irVersion,
  graph,
  opsetImport: [{ domain: '', version: 17 }],
});
const ifNode = (yes: GraphProto, no: GraphProto, ...output: string[]): NodeProto => ({
  ...node('If', ['flag'], ...output),
  attribute: [
    { name: 'then_branch', g: yes },
    { name: 'else_branch', g: no },
  ],
});
/** Nodes as text: `Add(a, b) -> c`, bodies in braces. */
const textOf = ({ node: nodes }: GraphProto): string =>
  nodes
    .map((each) => {
      const bodies = bodiesOf(each).map((body) => ` {${textOf(body)}}`);
      return `${each.opType}(${each.input.join(', ')}) -> ${each.output.join(', ')}${bodies.join('')}`;
    })
    .join('; ');
const doubled: Rewriter = (each, { constant, derive }) => {
  if (each.opType !== 'MatMul') return undefined;
  const [x = '', weight = ''] = each.input;
  const replaced = derive(weight, () => constant(`${weight}_q`, one));
  return [{ ...each, input: [x, replaced] }];
};

describe('rewriteModel', () => {
  it('gives the model itself back if nothing changes, whatever it may need', () => {
    const model = sampleModel();
    expect(rewriteModel(model, () => undefined, { opsets: { '': 21 }, irVersion: 10 })).toBe(model);
  });

  it('shares what it does not touch', () => {
    const model = sampleModel();
    const after = rewriteModel(model, (each) =>
      each.opType === 'Add' ? [{ ...each, opType: 'Sub' }] : undefined,
    );
    expect(after.graph.node.map((each, i) => each === model.graph.node[i])).toEqual([
      true,
      true,
      false,
      true,
    ]);
    expect(after.graph.initializer[0]).toBe(model.graph.initializer[0]);
  });

  it('rewrites tied weights once and drops the original when its last reader is gone', () => {
    const graph = {
      ...graphOf(
        [node('MatMul', ['x', 'w'], 'a'), node('MatMul', ['a', 'w'], 'b'), node('Gather', ['v', 'i'], 'c')],
        ['b', 'c'],
      ),
      initializer: ['w', 'v'].map((name) => ({ name, dims: [], dataType: 1 })),
      input: ['x', 'i', 'w', 'v'].map((name) => ({ name })),
      valueInfo: ['w', 'a', 'gone'].map((name) => ({ name })),
    };
    const after = rewriteModel(modelOf(graph), doubled).graph;
    expect(textOf(after)).toBe('MatMul(x, w_q) -> a; MatMul(a, w_q) -> b; Gather(v, i) -> c');
    expect(after.initializer.map(({ name }) => name)).toEqual(['v', 'w_q']);
    expect(after.input.map(({ name }) => name)).toEqual(['x', 'i', 'v']);
    expect(after.valueInfo?.map(({ name }) => name)).toEqual(['a']);
  });

  it('keeps a constant that another node or an output still reads, or that nobody ever read', () => {
    const constant = (name: string): NodeProto => node('Constant', [], name);
    const graph = {
      ...graphOf(
        [constant('w'), constant('u'), node('MatMul', ['x', 'w'], 'a'), node('MatMul', ['a', 'o'], 'b')],
        ['b', 'o'],
      ),
      initializer: ['o', 'idle'].map((name) => ({ name, dims: [], dataType: 1 })),
    };
    const after = rewriteModel(modelOf(graph), doubled).graph;
    expect(textOf(after)).toBe('Constant() -> u; MatMul(x, w_q) -> a; MatMul(a, o_q) -> b');
    expect(after.initializer.map(({ name }) => name)).toEqual(['o', 'idle', 'w_q', 'o_q']);
  });

  it('drops sparse constants and those of bodies too', () => {
    const weight = (name: string): GraphProto['initializer'][number] => ({ name, dims: [], dataType: 1 });
    const body: GraphProto = {
      ...graphOf([node('MatMul', ['x', 'w'], 'y')], ['y']),
      initializer: [weight('w')],
    };
    const graph: GraphProto = {
      ...graphOf([ifNode(body, graphOf([node('MatMul', ['x', 's'], 'z')], ['z']), 'out')], ['out']),
      sparseInitializer: [{ dims: [1], values: weight('s') }],
    };
    const after = rewriteModel(modelOf(graph), doubled).graph;
    expect(textOf(after)).toBe('If(flag) -> out {MatMul(x, w_q) -> y} {MatMul(x, s_q) -> z}');
    expect(bodiesOf(after.node[0] as NodeProto)[0]?.initializer).toEqual([]);
    expect(after.sparseInitializer).toEqual([]);
    expect(after.initializer.map(({ name }) => name)).toEqual(['w_q', 's_q']);
  });

  it('keeps an outer weight that one of two branches still reads', () => {
    const graph = {
      ...graphOf(
        [
          ifNode(
            graphOf([node('MatMul', ['x', 'w'], 'y')], ['y']),
            graphOf([node('Add', ['x', 'w'], 'z')], ['z']),
            'out',
          ),
        ],
        ['out'],
      ),
      initializer: [{ name: 'w', dims: [], dataType: 1 }],
    };
    const after = rewriteModel(modelOf(graph), doubled).graph;
    expect(textOf(after)).toBe('If(flag) -> out {MatMul(x, w_q) -> y} {Add(x, w) -> z}');
    expect(after.initializer.map(({ name }) => name)).toEqual(['w', 'w_q']);
  });

  it('tells weights of the same name in two branches apart', () => {
    const branch = (length: number): GraphProto => ({
      ...graphOf([node('MatMul', ['x', 'w'], 'y')], ['y']),
      initializer: [{ name: 'w', dims: [length], dataType: 1 }],
    });
    const model = modelOf(graphOf([ifNode(branch(3), branch(5), 'out')], ['out']));
    const seen: (readonly number[] | undefined)[] = [];
    const after = rewriteModel(model, (each, edit) => {
      seen.push(edit.scope.constant(each.input[1] ?? '')?.dims);
      return doubled(each, edit);
    });
    expect(seen.slice(0, 2)).toEqual([[3], [5]]);
    expect(after.graph.initializer).toHaveLength(2);
    const bodies = bodiesOf(after.graph.node[0] as NodeProto);
    expect(bodies.map((body) => body.output[0]?.name === body.node[0]?.output[0])).toEqual([true, true]);
  });

  it('lets annotations follow the values of a body that get other names', () => {
    const branch: GraphProto = {
      ...graphOf([node('MatMul', ['x', 'w'], 'y')], ['y']),
      initializer: [{ name: 'w', dims: [1], dataType: 1 }],
      quantizationAnnotation: [
        { tensorName: 'y', quantParameterTensorNames: [{ key: 'SCALE_TENSOR', value: 'w' }] },
      ],
    };
    const model = modelOf(graphOf([ifNode(branch, branch, 'out')], ['out']));
    const after = rewriteModel(model, (each) =>
      each.opType === 'MatMul' ? [{ ...each, opType: 'Mul' }] : undefined,
    );
    for (const { initializer, output, quantizationAnnotation } of bodiesOf(
      after.graph.node[0] as NodeProto,
    )) {
      expect(initializer[0]?.name).not.toBe('w');
      expect(quantizationAnnotation).toEqual([
        {
          tensorName: output[0]?.name,
          quantParameterTensorNames: [{ key: 'SCALE_TENSOR', value: initializer[0]?.name }],
        },
      ]);
    }
  });

  it('redirects later readers, along chains, in this graph and its bodies, but no outputs', () => {
    const body = graphOf([node('Neg', ['a'], 'inner')], ['inner']);
    const model = modelOf(
      graphOf(
        [node('Relu', ['x'], 'a'), node('Exp', ['a'], 'b'), ifNode(body, body, 'c'), node('Abs', ['a'], 'd')],
        ['a', 'b', 'c', 'd'],
      ),
    );
    const after = rewriteModel(model, (each, { redirect, fresh }) => {
      const [from = ''] = each.opType === 'Relu' ? each.output : each.input;
      if (each.opType !== 'Relu' && each.opType !== 'Exp') return undefined;
      const to = fresh('q');
      redirect(from, to);
      return [each, node('Q', [from], to)];
    });
    expect(textOf(after.graph)).toMatch(
      /^Relu\(x\) -> a; Q\(a\) -> q; Exp\(q\) -> b; Q\(q\) -> q_\d; If\(flag\) -> c \{Neg\((q_\d)\) -> \w+\} \{Neg\(\1\) -> \w+\}; Abs\(\1\) -> d$/,
    );
    expect(after.graph.output.map(({ name }) => name)).toEqual(['a', 'b', 'c', 'd']);
  });

  it('ends a redirect with the body that it was made in', () => {
    const body = graphOf([node('Relu', ['x'], 'i'), node('Neg', ['x'], 'j')], ['i', 'j']);
    const model = modelOf(
      graphOf([ifNode(body, graphOf([node('Abs', ['x'], 'k')], ['k']), 'c'), node('Exp', ['x'], 'd')], ['d']),
    );
    const after = rewriteModel(model, (each, { redirect }) => {
      if (each.opType === 'Relu') redirect('x', 'i');
      return undefined;
    });
    expect(textOf(after.graph)).toBe('If(flag) -> c {Relu(x) -> i; Neg(i) -> j} {Abs(x) -> k}; Exp(x) -> d');
  });

  it('puts nodes in order first, so that redirects reach every reader', () => {
    const body = graphOf([node('Neg', ['a'], 'i')], ['i']);
    const model = modelOf(
      graphOf(
        [ifNode(body, body, 'c'), node('Abs', ['a'], 'd'), node('Exp', ['x'], 'e'), node('Relu', ['e'], 'a')],
        ['c', 'd'],
      ),
    );
    const after = rewriteModel(model, (each, { redirect }) => {
      if (each.opType !== 'Relu') return undefined;
      redirect('a', 'q');
      return [each, node('Q', ['a'], 'q')];
    });
    expect(textOf(after.graph)).toMatch(
      /^Exp\(x\) -> e; Relu\(e\) -> a; Q\(a\) -> q; If\(flag\) -> c \{Neg\(q\) -> \w+\} \{Neg\(q\) -> \w+\}; Abs\(q\) -> d$/,
    );
    expect(rewriteModel(model, () => undefined)).toBe(model);
  });

  it('refuses a redirect that leads back', () => {
    const model = modelOf(graphOf([node('Relu', ['x'], 'a')]));
    expect(() =>
      rewriteModel(model, (_, { redirect }) => {
        redirect('a', 'b');
        redirect('b', 'a');
        return undefined;
      }),
    ).toThrow(RangeError);
  });

  it('raises versions only as far as asked, and adds operator sets that lack', () => {
    const model = modelOf(graphOf([node('Relu', ['x'], 'a')]));
    const rename: Rewriter = (each) => [{ ...each, opType: 'Abs' }];
    const after = rewriteModel(model, rename, {
      opsets: { 'ai.onnx': 21, 'com.microsoft': 1 },
      irVersion: 10,
    });
    expect(after.opsetImport).toEqual([
      { domain: '', version: 21 },
      { domain: 'com.microsoft', version: 1 },
    ]);
    expect(after.irVersion).toBe(10);
    const kept = rewriteModel(model, rename, { opsets: { '': 11 }, irVersion: 4 });
    expect([kept.irVersion, kept.opsetImport]).toEqual([8, model.opsetImport]);
  });

  it('lifts a model of before IR version 4, whose constants all had to be inputs', () => {
    const graph = {
      ...graphOf([node('MatMul', ['x', 'w'], 'a'), node('Add', ['a', 'b'], 'y')], ['y']),
      initializer: ['w', 'b'].map((name) => ({ name, dims: [], dataType: 1 })),
      input: ['x', 'w', 'b'].map((name) => ({ name })),
    };
    const after = rewriteModel(modelOf(graph, 3), doubled);
    expect(after.irVersion).toBe(4);
    expect(after.graph.input.map(({ name }) => name)).toEqual(['x']);
  });

  it('makes up names that nothing in the model has', () => {
    const names = fc.constantFrom('a', 'a_1', 'a_2', 'b', '');
    const nodes = fc.array(fc.record({ input: fc.array(names), output: fc.array(names), name: names }));
    fc.assert(
      fc.property(nodes, names, (drawn, stem) => {
        const model = modelOf(
          graphOf([...drawn.map((each) => ({ ...each, attribute: [] })), node('Relu', ['x'], 'z')]),
        );
        const made = new Set<string>();
        rewriteModel(model, (each, { fresh }) => {
          if (each.opType === 'Relu') for (let i = 0; i < 3; i += 1) made.add(fresh(stem));
          return undefined;
        });
        const taken = drawn.flatMap(({ input, output, name }) => [...input, ...output, name]);
        expect(made.size).toBe(3);
        expect([...made].filter((name) => name === '' || new Set<string>(taken).has(name))).toEqual([]);
      }),
      { numRuns: 50 },
    );
  });

  it('gives a model that can be written and read', () => {
    const after = rewriteModel(sampleModel(), doubled);
    const bytes = encodeModel(after);
    expect(encodeModel(parseModel(bytes))).toEqual(bytes);
    const graph = createGraph({ name: 'g', opset: 17 });
    expect(rewriteModel(graph.toModel(), doubled).graph.node).toEqual([]);
  });
});
