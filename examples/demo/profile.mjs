import { writeFile } from 'node:fs/promises';
import { createInlay, Tensor } from 'inlay';
import { chooseFeatures, createProfileBuilder } from 'inlay/publish';
import { createRandom, drawDigit, SIDE } from '../digits/draw.mjs';

const EXAMPLES = 1000;

/** Writes down how the answers of a model are distributed when all is well: devices count theirs into the same bins. */
export async function writeProfile(modelPath, to) {
  const inlay = createInlay({ device: 'cpu' });
  try {
    const model = await inlay.load(modelPath);
    const random = createRandom(42);
    let builder;
    for (let drawn = 0; drawn < EXAMPLES; drawn += 1) {
      const { label, pixels } = drawDigit(random);
      const feeds = { image: new Tensor('float32', [1, 1, SIDE, SIDE], pixels) };
      const outputs = await model.run(feeds);
      builder ??= createProfileBuilder(chooseFeatures(feeds, outputs));
      builder.add(feeds, outputs, label);
    }
    await writeFile(to, JSON.stringify(builder.build()));
  } finally {
    await inlay.close();
  }
}
