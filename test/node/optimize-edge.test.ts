import { describe, expect, it } from 'vitest';
import { toBfloat16Bits } from '../../src/core/float.ts';
import { Tensor, tensorFrom } from '../../src/core/tensor.ts';
import type { ModelProto } from '../../src/onnx/messages.ts';
import { validateModel } from '../../src/onnx/validate.ts';
import type { Rewritten } from '../../src/optimize/technique.ts';
import { floats, gauss, runOnce, sqnrDb } from './optimize-golden.ts';
import {
  techniques,
  float32,
  scaled,
  typesOf,
  model,
  product,
  apply,
  applyBlindly,
} from './optimize-edge-fixture.ts';

describe.each(Object.entries(techniques))('%s', (name, technique) => {
  it.each<[string, Float32Array<ArrayBuffer>]>([
    ['zeros', new Float32Array(768)],
    ['a single value', new Float32Array(768).fill(0.37)],
    ['denormal numbers', new Float32Array(768).fill(1e-42)],
    ['one that is not zero', Float32Array.from({ length: 768 }, (_, i) => (i === 400 ? -2 : 0))],
    ['very large numbers', new Float32Array(768).fill(1e30)],
  ])('gives finite answers with weights of %s', async (_case, data) => {
    const float = product(new Tensor('float32', [32, 24], data));
    const feeds = {
      x: floats(
        [3, 32],
        gauss(96, 9).map((value) => value / 100),
      ),
    };
    const expected = await runOnce(float, feeds);
    const actual = await runOnce((await apply(float, technique, feeds)).model, feeds);
    expect(actual.every(Number.isFinite)).toBe(true);
    // float16 clamps what is larger than it can say.
    if (name === 'float16' && (data[0] as number) > 65_504) return;
    const scale = Math.max(...expected.map(Math.abs));
    const worst = Math.max(...actual.map((value, i) => Math.abs(value - (expected[i] as number))));
    expect(worst).toBeLessThanOrEqual(0.1 * scale + 1e-6);
  });

  it.each([Number.NaN, Infinity, -Infinity])(
    'refuses or keeps weights that hold %s, and names them',
    (bad) => {
      const data = gauss(768);
      data[500] = bad;
      const rewrite = (): Rewritten =>
        applyBlindly(product(new Tensor('float32', [32, 24], data)), technique);
      // Half precision says as much as single precision of such a number.
      if (technique.kind === 'float16') expect(rewrite().changed).not.toEqual([]);
      else {
        expect(rewrite).toThrow(expect.objectContaining({ code: 'ERR_INLAY_MODEL_INVALID' }));
        expect(rewrite).toThrow(/"w"/);
      }
    },
  );

  it('takes batches of no rows, of one and of several', async () => {
    const float = model((graph) => {
      graph.input('x', 'float32', ['n', 32]);
      graph.initializer('w', float32([32, 24]));
      graph.initializer('nothing', new Tensor('float32', [0, 24], new Float32Array(0)));
      const sum = graph.node('MatMul', ['x', 'w']);
      graph.node('Concat', [graph.node('Relu', [sum]), 'nothing'], { axis: 0 }, { outputs: 'y' });
      graph.output('y', 'float32', ['n', 24]);
    });
    const small = (await apply(float, technique, { x: floats([5, 32]) })).model;
    // ReduceMax of onnxruntime 1.30 takes no axis away where there are no rows.
    const isByRow = technique.kind === 'dynamic' && technique.mode === undefined;
    for (const rows of isByRow ? [1, 5] : [0, 1, 5]) {
      const feeds = { x: floats([rows, 32]) };
      const [expected, actual] = [await runOnce(float, feeds), await runOnce(small, feeds)];
      expect(actual.length).toBe(rows * 24);
      if (rows > 0) expect(sqnrDb(expected, actual)).toBeGreaterThan(25);
    }
  });

  it('keeps what a Loop computes with weights of the graph around it', async () => {
    const float = model((graph) => {
      graph.input('x', 'float32', ['n', 32]);
      graph.initializer('w', scaled([32, 32], 0.15));
      graph.initializer('times', tensorFrom('int64', 3));
      graph.initializer('always', tensorFrom('bool', true));
      const body = graph.subgraph('body');
      body.input('i', 'int64', []);
      body.input('goes_on', 'bool', []);
      body.input('state', 'float32', ['n', 32]);
      body.node('Identity', ['goes_on'], {}, { outputs: 'goes_on_still' });
      body.node('MatMul', ['state', 'w'], {}, { outputs: 'next' });
      body.output('goes_on_still', 'bool', []);
      body.output('next', 'float32', ['n', 32]);
      const first = graph.node('MatMul', ['x', 'w']);
      graph.node('Loop', ['times', 'always', first], { body }, { outputs: 'y' });
      graph.output('y', 'float32', ['n', 32]);
    });
    const feeds = { x: floats([3, 32]) };
    const { model: small, changed } = await apply(float, technique, feeds);
    expect(changed.length).toBeGreaterThan(0);
    expect(sqnrDb(await runOnce(float, feeds), await runOnce(small, feeds))).toBeGreaterThan(20);
  });

  it('multiplies by several matrices in one constant', async () => {
    const float = model((graph) => {
      graph.input('x', 'float32', [3, 5, 32]);
      graph.initializer('w', float32([3, 32, 24]));
      graph.node('MatMul', ['x', 'w'], {}, { outputs: 'y' });
      graph.output('y', 'float32', [3, 5, 24]);
    });
    const feeds = { x: floats([3, 5, 32]) };
    const { model: small } = await apply(float, technique, feeds);
    expect(sqnrDb(await runOnce(float, feeds), await runOnce(small, feeds))).toBeGreaterThan(25);
  });

  it('gives nodes of one name, or of none, names of their own', async () => {
    const built = model((graph) => {
      graph.input('x', 'float32', ['n', 32]);
      graph.initializer('w', scaled([32, 32], 0.2));
      const [a, b] = [graph.node('MatMul', ['x', 'w']), graph.node('Relu', ['x'])];
      const c = graph.node('MatMul', [b, 'w']);
      graph.node('Add', [a, c], {}, { outputs: 'y' });
      graph.output('y', 'float32', ['n', 32]);
    });
    const feeds = { x: floats([3, 32]) };
    const expected = await runOnce(built, feeds);
    const named = (label: string): ModelProto => ({
      ...built,
      graph: { ...built.graph, node: built.graph.node.map((node) => ({ ...node, name: label })) },
    });
    const { model: small } = await apply(named(''), technique, feeds);
    expect(sqnrDb(expected, await runOnce(small, feeds))).toBeGreaterThan(20);
    // onnxruntime takes no two nodes of one name, so that nothing can be asked of it.
    const labels = applyBlindly(named('same'), technique).model.graph.node.map((node) => node.name);
    const added = labels.filter((label) => label !== 'same');
    expect(new Set(added).size).toBe(added.length);
  });

  it('leaves what is excluded by the name of its output where it has no name', () => {
    const { graph, ...rest } = product();
    const unnamed = { ...rest, graph: { ...graph, node: graph.node.map((node) => ({ ...node, name: '' })) } };
    const { kept, changed } = applyBlindly(unnamed, technique, { exclude: ['y'], types: typesOf('x', 'y') });
    expect(kept).toContainEqual({ node: 'y', op: 'MatMul', reason: 'it is excluded' });
    expect(changed.map(({ op }) => op)).not.toContain('MatMul');
  });

  it('says that weights can no longer be overridden where they were an input as well', () => {
    const { graph, ...rest } = product();
    const w = { ...graph.input[0], name: 'w' };
    const { model: small, warnings } = applyBlindly(
      { ...rest, graph: { ...graph, input: [...graph.input, w] } },
      technique,
      { types: typesOf('x', 'y', 'w') },
    );
    expect(small.graph.input.map((input) => input.name)).toEqual(['x']);
    expect(warnings.join('\n')).toMatch(/"w".* overrid/);
  });

  it('takes weights of bfloat16 for what they are, or leaves them', () => {
    const { graph, ...rest } = product();
    const half = Uint16Array.from(gauss(768), toBfloat16Bits);
    const w = { name: 'w', dims: [32, 24], dataType: 16, rawData: new Uint8Array(half.buffer) };
    const { model: small } = applyBlindly({ ...rest, graph: { ...graph, initializer: [w] } }, technique);
    expect(validateModel(small).filter(({ severity }) => severity === 'error')).toEqual([]);
  });
});
