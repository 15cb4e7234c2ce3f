/** The process that {@link createIsolatedRuntime} starts: answers questions with the runtime that its argument names. */

import { toErrorRecord } from '../core/errors.ts';
import { revive, type Answer, type Question } from './isolated.ts';
import { createNodeRuntime } from './node-cpu.ts';
import { serveRuntime, type Verbs } from './remote.ts';
import { createWasmRuntime } from './wasm.ts';

const ask = serveRuntime(process.argv[2] === 'wasm' ? createWasmRuntime() : createNodeRuntime());

async function answer({ id, verb, body }: Question): Promise<Answer> {
  try {
    const result = await ask(verb, revive(body) as Verbs[typeof verb]['body']);
    return { id, result };
  } catch (error) {
    return { id, error: toErrorRecord(error) };
  }
}

process.on('message', (question: Question) => {
  void answer(question).then((answered) => process.send?.(answered));
});
// Without anyone to ask, there is nothing left to do.
process.on('disconnect', () => {
  process.exit();
});
