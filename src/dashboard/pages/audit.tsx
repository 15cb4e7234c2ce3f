import type { JSX } from 'preact';
import type { AuditAnswer } from '../../server/api/answers.ts';
import * as format from '../format.ts';
import { Badge, Empty, Panel, Trouble, Waiting } from '../ui/parts.tsx';
import { useAnswer } from '../use-answer.ts';

/** Who changed what, in a chain of hashes. */
export function Audit(): JSX.Element {
  const { value, error } = useAnswer<AuditAnswer>('/audit', { limit: 200 });
  return (
    <>
      <h1>Audit</h1>
      <Trouble error={error} />
      <Panel
        title="Log"
        hint="The last 200 records. Each has the hash of the one before; `npx inlay audit verify` checks them all from elsewhere."
        actions={
          value && (
            <Badge tone={value.intact ? 'good' : 'bad'}>
              {value.intact ? 'chain holds' : 'chain is broken'}
            </Badge>
          )
        }
      >
        {value === undefined ? (
          <Waiting />
        ) : value.records.length === 0 ? (
          <Empty title="Nothing has been changed yet" />
        ) : (
          <div class="scroll">
            <table>
              <thead>
                <tr>
                  <th class="number">No.</th>
                  <th>When</th>
                  <th>Who</th>
                  <th>What</th>
                  <th>Details</th>
                  <th>Hash</th>
                </tr>
              </thead>
              <tbody>
                {value.records.map((record) => (
                  <tr key={record.seq}>
                    <td class="number">{record.seq}</td>
                    <td>{format.time(Date.parse(record.at))}</td>
                    <td>
                      <code>{record.actor}</code>
                    </td>
                    <td>{record.action}</td>
                    <td class="details">
                      {flat(record.details).map(([name, detail]) => (
                        <span key={name}>
                          {name} <b>{detail}</b>
                        </span>
                      ))}
                    </td>
                    <td>
                      <code>{record.hash.slice(0, 10)}</code>
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        )}
      </Panel>
    </>
  );
}

/** Details by name, those within others as `before.version`; what is empty is left out. */
function flat(
  details: Readonly<Record<string, unknown>>,
  within = '',
): readonly (readonly [string, string])[] {
  return Object.entries(details).flatMap(([name, value]) => {
    if (typeof value !== 'object' || value === null) return [[within + name, String(value)] as const];
    if (Array.isArray(value)) return [[within + name, value.map(String).join(', ')] as const];
    return flat(value as Readonly<Record<string, unknown>>, `${within}${name}.`);
  });
}
