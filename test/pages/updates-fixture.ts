/** A real server with a publisher, for pages that follow it. */
import { join } from 'node:path';
import { createAdminClient } from '../../src/cli/admin-client.ts';
import { openKeyDirectory } from '../../src/cli/key-directory.ts';
import { fromUtf8 } from '../../src/core/bytes.ts';
import { Tensor, tensorFrom } from '../../src/core/tensor.ts';
import { createGraph, encodeModel } from '../../src/onnx/index.ts';
import { publishRelease } from '../../src/publish/publisher.ts';
import { createRoot, createTargets, expiresIn } from '../../src/publish/release.ts';
import { signMetadata } from '../../src/publish/sign.ts';
import type { PlanEntry, TrialRules } from '../../src/update/plan.ts';
import { expectOk, startTestServer, temporaryDirectory, testPlatform } from '../node/server-fixture.ts';
import { scale } from '../node/publish-fixture.ts';

export { scale };

/** It loads, and its answers are no numbers. */
export function givesNaN(): Uint8Array<ArrayBuffer> {
  const graph = createGraph({ name: 'test', opset: 17 });
  graph.input('x', 'float32', ['batch', 2]);
  const zero = graph.node('Sub', ['x', 'x']);
  graph.node('Div', [zero, zero], {}, { outputs: ['y'] });
  graph.output('y', 'float32', ['batch', 2]);
  return encodeModel(graph.toModel());
}

/** It loads, and its first run does not end. */
export function hangs(): Uint8Array<ArrayBuffer> {
  const graph = createGraph({ name: 'test', opset: 17 });
  graph.input('x', 'float32', ['batch', 2]);
  graph.initializer('times', new Tensor('int64', [], new BigInt64Array([2n ** 50n])));
  graph.initializer('go', tensorFrom('bool', true));
  const body = graph.subgraph('body');
  body.input('i', 'int64', []);
  body.input('before', 'bool', []);
  body.input('sum', 'float32', ['batch', 2]);
  body.constant('one', new Tensor('float32', [1], new Float32Array([1])));
  body.node('Identity', ['before'], {}, { outputs: 'goOn' });
  body.node('Add', ['sum', 'one'], {}, { outputs: 'next' });
  body.output('goOn', 'bool', []);
  body.output('next', 'float32', ['batch', 2]);
  graph.node('Loop', ['times', 'go', 'x'], { body }, { outputs: 'y' });
  graph.output('y', 'float32', ['batch', 2]);
  return encodeModel(graph.toModel());
}

/** A server, its publisher, and what a page needs to follow it. */
export interface World {
  readonly sync: { readonly url: string; readonly root: string; readonly pollMs: number };
  /** Where the server keeps things. */
  readonly dataDir: string;
  /** Publishes a version and rolls it out to all. */
  ship(version: string, bytes: Uint8Array<ArrayBuffer>, trial?: Partial<TrialRules>): Promise<PlanEntry>;
}

/** Releases that prove themselves with their first answer. */
export const AT_ONCE: Partial<TrialRules> = { minInferences: 1, soakS: 0 };

export async function startWorld(): Promise<World> {
  const server = await startTestServer({ platform: testPlatform(Date.now()) });
  const { platform, token, onlineKey, url } = server;
  const keys = openKeyDirectory(join(await temporaryDirectory(), 'keys'), platform);
  const { root, targets } = await keys.create();
  const expires = expiresIn(platform.now(), 100);
  const signed = await signMetadata(
    createRoot({ rootKeys: [root], targetsKeys: [targets], onlineKey, expires }),
    [root],
  );
  await keys.write('root.json', signed);
  const client = createAdminClient({ server: url, token, platform });
  await client.putRoot(signed);
  await client.putTargets(await signMetadata(createTargets({ onlineKey, expires }), [targets]));
  return {
    sync: { url, root: fromUtf8(signed), pollMs: 3_600_000 },
    dataDir: server.dataDir,
    ship: async (version, bytes, trial) => {
      const { path, seq, sha256, sizeBytes } = await publishRelease(
        { server: client, keys, platform },
        bytes,
        {
          model: 'digits',
          version,
          file: 'digits.onnx',
        },
      );
      await expectOk(
        server.put(
          'rollouts/stable/digits',
          JSON.stringify({ version, percent: 100, ...(trial && { trial }) }),
        ),
      );
      return { path, seq, sha256, length: sizeBytes, version };
    },
  };
}
