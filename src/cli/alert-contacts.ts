import type { Command } from 'commander';
import { ServerError } from '../core/errors.ts';
import { nodePlatform } from '../platform-node.ts';
import type { Contact } from '../server/alerts/contact.ts';
import type { Delivery } from '../server/alerts/outbox.ts';
import type { AdminClient } from './admin-client.ts';
import { connect, withServerFlags, type ServerFlags } from './connection.ts';
import { readJsonFile } from './json-file.ts';
import { parseDuration } from './rollout-options.ts';
import { table, type Terminal } from './terminal.ts';

interface Flags extends ServerFlags {
  readonly json?: true;
}

/** Adds `inlay alerts contacts`. */
export function addAlertContacts(alerts: Command, terminal: Terminal): void {
  const contacts = alerts.command('contacts').description('where notifications go');
  addList(contacts, terminal);
  addAdd(contacts, terminal);
  addRemove(contacts, terminal);
  addTest(contacts, terminal);
}

function addList(contacts: Command, terminal: Terminal): void {
  withServerFlags(contacts.command('list', { isDefault: true }))
    .description('list contacts')
    .option('--json', 'print JSON')
    .action(async (flags: Flags) => {
      const { contacts: found } = await connect(flags, terminal).ask<{ contacts: readonly Contact[] }>(
        'alerts/contacts',
      );
      if (flags.json) {
        terminal.print(JSON.stringify(found));
        return;
      }
      if (found.length === 0) {
        terminal.print('Nobody is told of alerts. Next:\n  npx inlay alerts contacts add contact.json');
        return;
      }
      const rows = found.map((contact) => [
        contact.id,
        contact.kind,
        placeOf(contact),
        contact.levels.join(', '),
        contact.isDefault ? 'what no rule routes' : 'what rules route there',
      ]);
      terminal.print(table(['id', 'kind', 'to', 'levels', 'hears of'], rows));
    });
}

function addAdd(contacts: Command, terminal: Terminal): void {
  withServerFlags(contacts.command('add').argument('<file>', 'contact in JSON'))
    .description('add a contact, or replace the one with its id')
    .option('--json', 'print JSON')
    .action(async (file: string, flags: Flags) => {
      const contact = readJsonFile('contact', file, terminal.cwd) as { readonly id?: unknown } | null;
      const added = await connect(flags, terminal).ask<Contact>(
        contactPath(String(contact?.id)),
        'PUT',
        contact,
      );
      terminal.print(
        flags.json
          ? JSON.stringify(added)
          : `${added.id} is told of alerts.\n\nNext:\n  npx inlay alerts contacts test ${added.id}`,
      );
    });
}

function addRemove(contacts: Command, terminal: Terminal): void {
  withServerFlags(contacts.command('remove').argument('<id>', 'its id'))
    .description('remove a contact')
    .option('--json', 'print JSON')
    .action(async (id: string, flags: Flags) => {
      await connect(flags, terminal).ask(contactPath(id), 'DELETE');
      terminal.print(flags.json ? JSON.stringify({ id }) : `${id} is told of nothing any more.`);
    });
}

function addTest(contacts: Command, terminal: Terminal): void {
  withServerFlags(contacts.command('test').argument('<id>', 'its id'))
    .description('send a test, and tell whether it was taken; ends with 1 if it was not')
    .option('--wait <time>', 'how long to wait for that', parseDuration, 30)
    .option('--json', 'print JSON')
    .action(async (id: string, flags: Flags & { readonly wait: number }) => {
      const client = connect(flags, terminal);
      const { key } = await client.ask<{ key: string }>(`${contactPath(id)}/test`, 'POST');
      const delivery = await tried(client, key, flags.wait * 1000);
      if (flags.json) terminal.print(JSON.stringify(delivery ?? { key, contact: id, state: 'waiting' }));
      if (delivery?.state !== 'delivered') throw notTaken(id, flags.wait, delivery);
      if (!flags.json) terminal.print(`${id} has taken the test.`);
    });
}

const pollMs = 250;

/** Waits until a delivery was tried once. @returns undefined if it was not in time. */
async function tried(client: AdminClient, key: string, waitMs: number): Promise<Delivery | undefined> {
  const platform = nodePlatform();
  for (const end = platform.now() + waitMs; ;) {
    const { deliveries } = await client.ask<{ deliveries: readonly Delivery[] }>('alerts/deliveries');
    const delivery = deliveries.find((known) => known.key === key);
    if (delivery && delivery.attempts > 0) return delivery;
    if (platform.now() >= end) return undefined;
    await new Promise<void>((done) => {
      platform.setTimer(done, pollMs, true);
    });
  }
}

function notTaken(id: string, waitS: number, delivery: Delivery | undefined): ServerError {
  const what = delivery
    ? `${id} has not taken the test: ${delivery.error}${delivery.state === 'waiting' ? ' It is tried again.' : ''}`
    : `The test for ${id} still waits after ${waitS} s; see the log of the server.`;
  return new ServerError('ERR_INLAY_SERVER', what, { details: { contact: id } });
}

function contactPath(id: string): string {
  return `alerts/contacts/${encodeURIComponent(id)}`;
}

/** Addresses of hooks may be secrets in themselves: their hosts say enough. */
function placeOf(contact: Contact): string {
  if (contact.kind === 'email') return contact.to.join(' ');
  return contact.url === undefined ? `$${contact.urlEnv}` : new URL(contact.url).host;
}
