import { parseArgs } from 'node:util';
import { RULES } from './segments.mjs';

/** The command line makes no sense; the message says what does. */
export class UsageError extends Error {}

/**
 * @param {string[]} args
 * @returns {{ wav: string, model: string, threshold: number, json: boolean }}
 * @throws {UsageError}
 */
export function parseCommand(args) {
  const { values, positionals } = parse(args);
  const threshold = Number(values.threshold ?? RULES.threshold);
  if (positionals.length !== 2) throw usage('give a recording and a model');
  if (!(threshold > 0 && threshold < 1)) throw usage(`"${values.threshold}" is no number between 0 and 1`);
  const [wav, model] = positionals;
  return { wav, model, threshold, json: values.json === true };
}

function parse(args) {
  try {
    const options = { threshold: { type: 'string' }, json: { type: 'boolean' } };
    return parseArgs({ args, options, allowPositionals: true });
  } catch (error) {
    throw usage(error.message.replace(/\.(?:\s.*)?$/s, ''));
  }
}

function usage(reason) {
  return new UsageError(
    `Usage: node examples/speech/main.mjs WAV MODEL [--threshold 0.5] [--json] (${reason}).`,
  );
}
