/** Writes a command line that a shell takes as it is meant, whatever is in a name or a reason. */
export function inlay(...words: readonly string[]): string {
  return ['npx', 'inlay', ...words.map(quoted)].join(' ');
}

/** The channel, where it is not the one that commands take anyway. */
export function inChannel(channel: string): readonly string[] {
  return channel === 'stable' ? [] : ['--channel', channel];
}

function quoted(word: string): string {
  return /^[\w.,:/@%+=-]+$/.test(word) ? word : `'${word.replaceAll("'", String.raw`'\''`)}'`;
}
