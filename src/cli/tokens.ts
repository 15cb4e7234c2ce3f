import { InvalidArgumentError, Option, type Command } from 'commander';
import { accessRoles, type AccessRole } from '../server/access.ts';
import type { NewToken, TokenRecord } from '../server/tokens.ts';
import { connect, withServerFlags, type ServerFlags } from './connection.ts';
import { formatTime } from './format.ts';
import { parseDuration } from './rollout-options.ts';
import { table, type Terminal } from './terminal.ts';

interface Flags extends ServerFlags {
  readonly json?: true;
}

interface CreateFlags extends Flags {
  readonly name: string;
  readonly role: AccessRole;
  readonly model?: string[];
  readonly channel?: string[];
  readonly expires?: number;
}

/** Adds `inlay tokens`. */
export function addTokens(program: Command, terminal: Terminal): void {
  const tokens = program.command('tokens').description('API keys of the server, and what each may do');

  withServerFlags(tokens.command('create').description('make a key; it is shown this once'))
    .requiredOption('--name <name>', 'whose it is, for the list and the audit log')
    .addOption(new Option('--role <role>', 'what it may do').choices([...accessRoles]).makeOptionMandatory())
    .option('--model <name>', 'only this model; may be repeated', collect)
    .option('--channel <name>', 'only this channel; may be repeated', collect)
    .option('--expires <time>', 'how long it holds, such as 90d (default: for ever)', parseDuration)
    .option('--json', 'print JSON')
    .addHelpText('after', roles)
    .action(async (flags: CreateFlags) => {
      const { name, role, model, channel, expires } = flags;
      const made = await connect(flags, terminal).ask<NewToken>('tokens', 'POST', {
        name,
        role,
        scope: { ...(model && { models: model }), ...(channel && { channels: channel }) },
        ...(expires !== undefined && { expiresInS: expires }),
      });
      printNew(made, flags, terminal);
    });

  withServerFlags(tokens.command('list').description('list all keys, without the keys themselves'))
    .option('--json', 'print JSON')
    .action(async (flags: Flags) => {
      const listed = await connect(flags, terminal).ask<{ tokens: TokenRecord[] }>('tokens');
      if (flags.json) {
        terminal.print(JSON.stringify(listed.tokens));
        return;
      }
      const rows = listed.tokens.map((token) => [
        token.id,
        token.name,
        token.role,
        scopeOf(token),
        token.state,
        formatTime(token.usedAt),
        formatTime(token.expiresAt),
      ]);
      terminal.print(table(['id', 'name', 'role', 'for', 'state', 'last used (UTC)', 'expires'], rows));
    });

  withServerFlags(
    tokens.command('revoke').description('end a key at once').argument('<id>', 'its id', parseId),
  )
    .option('--json', 'print JSON')
    .action(async (id: string, flags: Flags) => {
      const token = await connect(flags, terminal).ask<TokenRecord>(`tokens/${id}`, 'DELETE');
      terminal.print(
        flags.json ? JSON.stringify(token) : `The key ${id} (${token.name}) does not hold any more.`,
      );
    });

  withServerFlags(
    tokens
      .command('rotate')
      .description('make a key like another, which ends after a while')
      .argument('<id>', 'id of the old one', parseId),
  )
    .option('--grace <time>', 'how long the old one still holds', parseDuration, 86_400)
    .option('--json', 'print JSON')
    .action(async (id: string, flags: Flags & { readonly grace: number }) => {
      const made = await connect(flags, terminal).ask<NewToken>(`tokens/${id}/rotate`, 'POST', {
        graceS: flags.grace,
      });
      printNew(made, flags, terminal);
    });
}

const roles = `
Roles:
  admin      may do all that there is
  publisher  publishes releases, starts and changes rollouts
  viewer     reads
  device     reports only, for servers that run with --require-device-key

Example:
  $ npx inlay tokens create --name ci --role publisher --model digits --expires 90d`;

function printNew({ token, record }: NewToken, { json }: Flags, terminal: Terminal): void {
  if (json) {
    terminal.print(JSON.stringify({ token, ...record }));
    return;
  }
  const until = record.expiresAt === null ? '' : `, until ${formatTime(record.expiresAt)} UTC`;
  terminal.print(`Key ${record.id} (${record.name}): ${record.role} for ${scopeOf(record)}${until}`);
  terminal.print(`\nShown this once:\n  ${token}`);
}

function scopeOf({ scope: { models, channels } }: TokenRecord): string {
  const parts = [models && models.join(', '), channels && `channel ${channels.join(', ')}`];
  return parts.filter((part) => part !== undefined).join(' in ') || 'everything';
}

function collect(name: string, before: string[] = []): string[] {
  return [...before, name];
}

function parseId(text: string): string {
  if (/^[0-9a-f]{8}$/.test(text)) return text;
  throw new InvalidArgumentError('It is 8 hex digits; see `inlay tokens list`.');
}
