import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { encodeModel, parseModel, type ModelProto } from '../../src/onnx/index.ts';
import { auditModel, type Finding } from '../../src/optimize/audit.ts';
import { quantizeDynamic } from '../../src/optimize/dynamic.ts';
import { createNodeRuntime } from '../../src/optimize-node/node-cpu.ts';
import { createWasmRuntime } from '../../src/optimize-node/wasm.ts';
import {
  blockProduct,
  bodiesWithConstant,
  convInteger,
  dense,
  halfPrecision,
  matMulInteger,
  residual,
  rowProduct,
} from './optimize-audit-models.ts';
import { temporaryDirectory } from './server-fixture.ts';

const runtime = createNodeRuntime();
const findingsOf = async (model: ModelProto): Promise<readonly Finding[]> =>
  (await auditModel(model, runtime)).findings;
const kindsOf = async (model: ModelProto): Promise<readonly string[]> =>
  (await findingsOf(model)).map(({ kind, node }) => `${node}: ${kind}`);

describe('the audit', () => {
  it('finds nothing where everything fuses, and counts what runs', async () => {
    const { operators, findings } = await auditModel(residual({ relu: 'fits' }), runtime);
    expect(findings).toEqual([]);
    expect(operators['com.microsoft.QLinearConv'] ?? operators['QLinearConv']).toBe(2);
    expect(await findingsOf(dense())).toEqual([]);
    expect(await findingsOf(matMulInteger({ isShared: false }))).toEqual([]);
  });

  it('names convolutions that dequantize their weights since int8 activations have several readers', async () => {
    const found = await findingsOf(residual({ activations: 'int8' }));
    const slow = found.filter(({ kind }) => kind === 'weight-dequantize');
    expect(slow.map(({ node }) => node).sort()).toEqual(['conv0', 'conv1']);
    for (const { reason, remedy, isSlow } of slow) {
      expect(reason).toContain('"a.q" gives int8 to several readers');
      expect(remedy).toBe('quantize activations as uint8');
      expect(isSlow).toBe(true);
    }
    expect(slow[0]?.reason).toContain('(576 elements) at every run');
    expect(found.filter(({ kind }) => kind === 'float-island').map(({ node }) => node)).toEqual(['add']);
  });

  it('names convolutions whose results are not quantized', async () => {
    const found = await findingsOf(residual({ hasQuantizedResults: false }));
    expect(found.map(({ node, kind }) => `${node}: ${kind}`)).toEqual([
      'conv0: weight-dequantize',
      'conv1: weight-dequantize',
    ]);
    expect(found[0]?.reason).toContain('its result is not quantized');
    expect(found[1]?.reason).toContain('the value that it is combined with is not quantized');
  });

  it('names an activation that does not vanish into the range behind it', async () => {
    const [found, ...others] = await findingsOf(residual({ relu: 'reaches-below' }));
    expect(others).toEqual([]);
    expect(found).toMatchObject({ node: 'conv0', kind: 'weight-dequantize', op: 'FusedConv' });
    expect(found?.reason).toContain('the activation behind it');
  });

  it('tells convolutions of integers that are slow from those that are no gain', async () => {
    const [[signed], [unsigned]] = await Promise.all([
      findingsOf(convInteger('int8')),
      findingsOf(convInteger('uint8')),
    ]);
    expect(signed).toMatchObject({ node: 'conv', kind: 'conv-integer', isSlow: true });
    expect(unsigned).toMatchObject({ node: 'conv', kind: 'conv-integer', isSlow: false });
  });

  it('tells products of integers that should have fused from those with a scale for each row', async () => {
    expect(await kindsOf(matMulInteger({ isShared: true }))).toEqual(['fc: dynamic-product']);
    expect(await kindsOf(rowProduct())).toEqual(['fc: row-product']);
  });

  it('calls nodes as the model did before a technique', async () => {
    const original = dense();
    const { model } = quantizeDynamic(original, { kind: 'dynamic', mode: 'row' });
    const { findings } = await auditModel(model, runtime, { original });
    expect(findings.map(({ kind, node }) => `${node}: ${kind}`)).toEqual(['fc: row-product']);
  });

  it('names products of blocks that leave their bias out or compute in float32', async () => {
    expect(await kindsOf(blockProduct({ bias: [16], level: 4 }))).toEqual([]);
    expect(await kindsOf(blockProduct({ bias: [1, 16], level: 4 }))).toEqual(['fc: block-bias']);
    expect(await kindsOf(blockProduct({ bias: [16], level: 0 }))).toEqual(['fc: block-float']);
  });

  it('looks into bodies, where constants of the graph around them are dequantized', async () => {
    expect([...(await kindsOf(bodiesWithConstant()))].sort()).toEqual([
      'else.mul: weight-dequantize',
      'then.mul: weight-dequantize',
    ]);
  });

  it('names what runs in float32 inside of a model of float16, and not the edges', async () => {
    const { findings, operators } = await auditModel(halfPrecision(), runtime);
    expect(operators['Cast'] ?? 0).toBeGreaterThan(2);
    expect(findings.map(({ kind, node }) => `${node}: ${kind}`)).toEqual(['softmax: float16-cast']);
  });

  it('says that a runtime does not tell', async () => {
    await expect(auditModel(dense(), createWasmRuntime())).rejects.toMatchObject({
      code: 'ERR_INLAY_BACKEND_UNAVAILABLE',
    });
  });
});

const golden = new URL('../../../shared/data/quantize/', import.meta.url);
const isHere = existsSync(golden);
if (!isHere) console.warn('Skipped: the models of ../shared/data/quantize are not here.');

describe.skipIf(!isHere)('of what the Python tools make, the audit', () => {
  const files = isHere
    ? readdirSync(golden).filter((file) => /\.(static|q4|q8|dynamic)\..*onnx$/.test(file))
    : [];
  it('finds no weight that is dequantized at every run', async () => {
    expect(files.length).toBeGreaterThan(5);
    for (const file of files) {
      const found = await findingsOf(parseModel(readFileSync(new URL(file, golden))));
      expect(found.filter(({ kind }) => kind === 'weight-dequantize')).toEqual([]);
    }
  });
});

describe('inlay audit <model>', () => {
  const main = fileURLToPath(new URL('../../build/cli/main.js', import.meta.url));
  const audit = async (model: ModelProto, ...flags: readonly string[]) => {
    const path = join(await temporaryDirectory(), 'model.onnx');
    await writeFile(path, encodeModel(model));
    return spawnSync(process.execPath, [main, 'audit', path, ...flags], { encoding: 'utf8' });
  };

  it('prints the nodes with reasons, and ends with 2 if a weight is dequantized at every run', async () => {
    const { stdout, status } = await audit(residual({ activations: 'int8' }));
    expect(status).toBe(2);
    expect(stdout).toMatch(/^conv1 +Conv +slow +dequantizes "conv1\.w"/m);
    expect(stdout).toContain('3 nodes did not fuse, 2 of them to the harm of speed.');
  });

  it('ends with 0 where nothing is wrong, and prints JSON', async () => {
    const { stdout, status } = await audit(dense(), '--json', '--level', 'basic');
    expect(JSON.parse(stdout)).toEqual({ level: 'basic', operators: { MatMul: 1, Relu: 1 }, findings: [] });
    expect(status).toBe(0);
  });
});
