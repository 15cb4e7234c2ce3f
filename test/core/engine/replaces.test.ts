import { describe, expect, it } from 'vitest';
import type { Signature, TensorSpec } from '../../../src/core/signature.ts';
import { assertReplaces } from '../../../src/engine/replaces.ts';

const spec = (
  name: string,
  shape: TensorSpec['shape'],
  dtype: TensorSpec['dtype'] = 'float32',
): TensorSpec => ({
  name,
  dtype,
  shape,
});
const image = spec('image', ['batch', 28, 28]);
const mask = spec('mask', ['batch'], 'bool');
const logits = spec('logits', ['batch', 10]);
const present: Signature = { inputs: [image, mask], outputs: [logits] };

/** What is said against a new signature. */
function objection(next: Partial<Signature>, before: Signature = present): string {
  try {
    assertReplaces('digits', before, '2.0.0', { ...before, ...next });
    return 'none';
  } catch (error) {
    expect(error).toMatchObject({ code: 'ERR_INLAY_MODEL_UNSUPPORTED' });
    return (error as Error).message;
  }
}

describe('assertReplaces', () => {
  it.each<[string, Partial<Signature>]>([
    ['nothing changed', {}],
    ['inputs come in another order', { inputs: [mask, image] }],
    ['sizes are only named otherwise', { inputs: [spec('image', ['n', 28, 28]), mask] }],
    ['there is one more output', { outputs: [spec('hidden', ['batch', 64]), logits] }],
    ['an output has more elements', { outputs: [spec('logits', ['batch', 12])] }],
    ['a shape is not told', { inputs: [spec('image', null), mask], outputs: [spec('logits', null)] }],
  ])('accepts a version where %s', (_, next) => {
    expect(objection(next)).toBe('none');
  });

  it('accepts an input that takes more than before', () => {
    const one = { ...present, inputs: [spec('image', [1, 28, 28])] };
    expect(objection({ inputs: [spec('image', ['batch', 28, 28])] }, one)).toBe('none');
    expect(objection({ inputs: [spec('image', [null, 28, 28])] }, one)).toBe('none');
  });

  it.each<[string, Partial<Signature>]>([
    ['its input mask: bool [batch] is gone', { inputs: [image] }],
    ['it has a new input hint: float32 [1]', { inputs: [image, mask, spec('hint', [1])] }],
    ['has become image: uint8 [batch, 28, 28]', { inputs: [spec('image', image.shape, 'uint8'), mask] }],
    ['has become image: float32 [batch, 32, 32]', { inputs: [spec('image', ['batch', 32, 32]), mask] }],
    ['has become image: float32 [1, 28, 28]', { inputs: [spec('image', [1, 28, 28]), mask] }],
    ['has become image: float32 [batch, 1, 28, 28]', { inputs: [spec('image', ['batch', 1, 28, 28]), mask] }],
    // A flat array of 784 numbers told the batch; it cannot tell three sizes.
    ['has become image: float32 [batch, h, w]', { inputs: [spec('image', ['batch', 'h', 'w']), mask] }],
    ['its output logits: float32 [batch, 10] is gone', { outputs: [spec('scores', ['batch', 10])] }],
    ['has become logits: int64 [batch, 10]', { outputs: [spec('logits', ['batch', 10], 'int64')] }],
    ['has become logits: float32 [batch]', { outputs: [spec('logits', ['batch'])] }],
  ])('refuses a version, since %s', (difference, next) => {
    expect(objection(next)).toContain(difference);
  });
});
