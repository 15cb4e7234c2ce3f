import { InvalidArgumentError } from 'commander';

/** Reads `--dim name=size`, which may be repeated. */
export function toDims(
  text: string,
  sizes: Readonly<Record<string, number>>,
): Readonly<Record<string, number>> {
  const [, name, size] = /^(.+)=([1-9]\d{0,8})$/.exec(text) ?? [];
  if (name !== undefined) return { ...sizes, [name]: Number(size) };
  throw new InvalidArgumentError('It is a name and a whole number of at least 1, such as batch=4.');
}
