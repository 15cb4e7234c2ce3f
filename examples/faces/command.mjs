import { join, parse as parsePath } from 'node:path';
import { parseArgs } from 'node:util';

/** The command line makes no sense; the message says what does. */
export class UsageError extends Error {}

/**
 * @param {string[]} args
 * @returns {{ model: string, images: { path: string, out: string }[], minScore: number, json: boolean }} `out` is
 * the file that an image with its boxes goes to.
 * @throws {UsageError}
 */
export function parseCommand(args) {
  const { values, positionals } = parse(args);
  const [model, ...paths] = positionals;
  const minScore = Number(values.score ?? 0.7);
  if (paths.length === 0) throw usage('give a model and at least one image');
  if (values.out === undefined) throw usage('say with --out where the images go');
  if (!(minScore > 0 && minScore < 1)) throw usage(`"${values.score}" is no number between 0 and 1`);
  const images = paths.map((path) => ({ path, out: join(values.out, `${parsePath(path).name}-faces.png`) }));
  const twice = images.find(({ out }, index) => images.findIndex((image) => image.out === out) < index);
  if (twice !== undefined) throw usage(`two images would become ${twice.out}`);
  return { model, images, minScore, json: values.json === true };
}

function parse(args) {
  try {
    const options = { out: { type: 'string' }, score: { type: 'string' }, json: { type: 'boolean' } };
    return parseArgs({ args, options, allowPositionals: true });
  } catch (error) {
    throw usage(error.message.replace(/\.(?:\s.*)?$/s, ''));
  }
}

function usage(reason) {
  return new UsageError(
    `Usage: node examples/faces/main.mjs MODEL IMAGE… --out DIR [--score 0.7] [--json] (${reason}).`,
  );
}
