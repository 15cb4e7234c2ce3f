import { basename, resolve } from 'node:path';
import type { Command } from 'commander';
import { ModelError } from '../core/errors.ts';
import { nodePlatform } from '../platform-node.ts';
import {
  connect,
  openKeys,
  withKeyFlags,
  withServerFlags,
  type KeyFlags,
  type ServerFlags,
} from './connection.ts';
import { loadModelFile } from './model-file.ts';
import { publishRelease } from '../publish/publisher.ts';
import { formatBytes, type Terminal } from './terminal.ts';

interface Flags extends ServerFlags, KeyFlags {
  readonly name: string;
  readonly version: string;
  readonly notes?: string;
  readonly json?: true;
}

/** Adds `inlay publish`. */
export function addPublish(program: Command, terminal: Terminal): void {
  const command = program
    .command('publish')
    .description(
      'sign a model file as a release and put it on the server; no device runs it before a rollout',
    )
    .argument('<file>', 'ONNX model')
    .requiredOption('--name <name>', 'name of the model')
    .requiredOption('--version <version>', 'version that people see, such as 1.1.0')
    .option('--notes <text>', 'what is new; signed with the release');
  withServerFlags(withKeyFlags(command))
    .option('--json', 'print JSON')
    .action(async (file: string, flags: Flags) => {
      const { name, version, notes } = flags;
      const path = resolve(terminal.cwd, file);
      const { bytes, report } = await loadModelFile(path);
      if (report.externalFiles.length > 0) {
        throw new ModelError(
          'ERR_INLAY_MODEL_UNSUPPORTED',
          `The model keeps weights in other files (${report.externalFiles.join(', ')}); save it as one file.`,
        );
      }
      const parts = {
        server: connect(flags, terminal),
        keys: openKeys(flags, terminal),
        platform: nodePlatform(),
      };
      const published = await publishRelease(parts, bytes, {
        model: name,
        version,
        file: targetName(path),
        ...(notes !== undefined && { custom: { notes } }),
      });
      if (flags.json) {
        terminal.print(JSON.stringify({ model: name, version, ...published }));
        return;
      }
      terminal.print(`Published ${name} ${version}`);
      terminal.print(`  path    ${published.path}`);
      terminal.print(`  size    ${formatBytes(published.sizeBytes)} (${published.sizeBytes} bytes)`);
      terminal.print(`  sha256  ${published.sha256}`);
      terminal.print(`\nNext:\n  npx inlay rollout set ${name} ${version} --percent 10`);
    });
}

/** Target paths are plain: lower case, no spaces. */
function targetName(path: string): string {
  const plain = basename(path)
    .toLowerCase()
    .replace(/[^a-z0-9._-]+/g, '-')
    .slice(-128)
    .replace(/^[^a-z0-9]+/, '');
  return plain === '' ? 'model.onnx' : plain;
}
