/** The signer process: holds the online key of the data directory in its argument, and answers on its standard output. */

import { toErrorRecord } from '../../core/errors.ts';
import { nodePlatform } from '../../platform-node.ts';
import { isFields, isSize } from '../../trust/parse.ts';
import { lockDirectory } from '../lock.ts';
import { openInlineSigner } from './open.ts';
import { ask, readLines, type Answer } from './protocol.ts';

const directory = process.argv[2] ?? '.';

/** Settles when the answer is written, so that an error is read before the process ends. */
const answer = (message: Answer): Promise<void> =>
  new Promise((done) => {
    process.stdout.write(`${JSON.stringify(message)}\n`, () => {
      done();
    });
  });

// The server is gone, however it went.
process.stdin.on('close', () => process.exit(0));
process.stdout.on('error', () => process.exit(0));
// Terminals and service managers send them to all processes; the server says when it is time.
process.on('SIGINT', () => undefined);
process.on('SIGTERM', () => undefined);

try {
  await lockDirectory(directory, 'signer.lock', 5000);
  const signer = await openInlineSigner(directory, nodePlatform(), process.env);
  await answer({ id: 0, result: await signer.public() });
  readLines(process.stdin, (line) => {
    void respond(line);
  });

  async function respond(line: string): Promise<void> {
    let id = 0;
    try {
      const question: unknown = JSON.parse(line);
      if (isFields(question) && isSize(question['id'])) id = question['id'];
      await answer({ id, result: await ask(signer, question) });
    } catch (error) {
      await answer({ id, error: toErrorRecord(error, 1) });
    }
  }
} catch (error) {
  await answer({ id: 0, error: toErrorRecord(error, 1) });
  process.exit(1);
}
