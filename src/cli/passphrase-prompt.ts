import { createInterface } from 'node:readline';
import { Writable } from 'node:stream';

/** Asks on the terminal, showing nothing of what is typed. Rejects if the answer is broken off. */
export function askSecret(question: string): Promise<string> {
  const nowhere = new Writable({
    write: (_chunk, _encoding, done) => {
      done();
    },
  });
  process.stderr.write(question);
  const lines = createInterface({ input: process.stdin, output: nowhere, terminal: true });
  return new Promise((done, fail) => {
    lines.once('line', (line) => {
      done(line);
      lines.close();
    });
    // Control-C, or the end of the input.
    lines.once('close', () => {
      process.stderr.write('\n');
      fail(new Error('No passphrase was given.'));
    });
  });
}
