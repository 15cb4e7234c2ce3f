import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { FileCosts } from '../../src/cli/inspect-costs.ts';
import { runCommand } from '../../src/cli/program.ts';
import { Tensor } from '../../src/core/tensor.ts';
import { createGraph } from '../../src/onnx/build.ts';
import { encodeModel } from '../../src/onnx/model.ts';
import { temporaryDirectory } from './server-fixture.ts';

async function inspect(cwd: string, ...args: readonly string[]): Promise<{ code: number; out: string }> {
  const out: string[] = [];
  const print = (text: string): void => void out.push(text);
  const interrupted = (): Promise<void> => Promise.resolve();
  const code = await runCommand(['inspect', ...args], {
    print,
    printError: print,
    env: {},
    cwd,
    interrupted,
  });
  return { code, out: out.join('\n') };
}

/** Two layers; what is between them is not declared. */
async function folderWithModel(domain = ''): Promise<string> {
  const graph = createGraph({ name: 'layers', opset: { '': 17, 'org.example': 1 } });
  graph.input('x', 'float32', ['batch', 16]);
  const w = graph.initializer('w', new Tensor('float32', [16, 1000], new Float32Array(16_000)));
  const v = graph.initializer('v', new Tensor('float32', [1000, 4], new Float32Array(4000)));
  const hidden = graph.node('MatMul', ['x', w], {}, { name: 'wide' });
  const positive = graph.node('Relu', [hidden], {}, { domain });
  graph.node('MatMul', [positive, v], {}, { outputs: 'y', name: 'narrow' });
  graph.output('y', 'float32', ['batch', 4]);
  const cwd = await temporaryDirectory();
  await writeFile(join(cwd, 'a.onnx'), encodeModel(graph.toModel()));
  return cwd;
}

describe('inlay inspect --costs', () => {
  it('tells what operators compute, with shapes that onnxruntime infers', async () => {
    const cwd = await folderWithModel();
    const { code, out } = await inspect(cwd, 'a.onnx', '--costs', '--dim', 'batch=8');
    expect(code).toBe(0);
    expect(out).toMatch(/^MatMul +2 +160 k +320 k +80\.0 kB$/m);
    expect(out).toMatch(/^Relu +1 +0 +8\.00 k +0 B$/m);
    expect(out).toMatch(/^w +constant +float32 +\[16, 1000\] +64\.0 kB +1$/m);
    expect(out).toContain('One run takes 328 k FLOPs.');
    expect(out).not.toContain('--dim');
  });

  it('counts one row where nobody says how many, and says so', async () => {
    const { out } = await inspect(await folderWithModel(), 'a.onnx', '--costs');
    expect(out).toMatch(/^One run takes \S+( k)? FLOPs\.$/m);
    expect(out).toContain('Counted with batch = 1; give other lengths with --dim.');
  });

  it('refuses a length of an axis that no input has', async () => {
    const { code, out } = await inspect(await folderWithModel(), 'a.onnx', '--costs', '--dim', 'rows=8');
    expect([code, out]).toEqual([1, expect.stringMatching(/axis called rows.*there is batch/)]);
  });

  it('shows as many rows as asked for', async () => {
    const { out } = await inspect(
      await folderWithModel(),
      'a.onnx',
      '--costs',
      '--top',
      '1',
      '--dim',
      'batch=8',
    );
    expect(out).toMatch(/^wide +MatMul/m);
    expect(out).not.toMatch(/^narrow/m);
    expect((await inspect(await folderWithModel(), 'a.onnx', '--top', '0')).code).toBe(2);
  });

  it('does with what the model states where onnxruntime does not take it, and says so', async () => {
    const cwd = await folderWithModel('org.example');
    const { out } = await inspect(cwd, 'a.onnx', '--costs', '--dim', 'batch=8', '--json');
    const { costs } = JSON.parse(out) as { costs: FileCosts };
    expect(costs.types).toBe('model');
    expect(costs.reason).toContain('org.example');
    expect(costs.nodes.map(({ node, flops }) => [node, flops])).toEqual([
      ['wide', null],
      [expect.any(String), null],
      ['narrow', null],
    ]);
    expect(costs.total.weightBytes).toBe(80_000);
  });

  it('adds nothing unless it is asked for', async () => {
    const { out } = await inspect(await folderWithModel(), 'a.onnx', '--json');
    expect(JSON.parse(out)).not.toHaveProperty('costs');
  });
});
