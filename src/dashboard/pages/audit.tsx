import type { JSX } from 'preact';
import type { AuditAnswer } from '../../server/api/answers.ts';
import * as format from '../format.ts';
import { useAnswer } from '../use-answer.ts';
import { Badge, Empty, Panel, Trouble, Waiting } from '../ui/parts.tsx';

/** Who changed what, in a chain of hashes. */
export function Audit(): JSX.Element {
  const { value, error } = useAnswer<AuditAnswer>('/audit');
  return (
    <>
      <h1>Audit</h1>
      <Trouble error={error} />
      <Panel
        title="Log"
        hint="Each record has the hash of the one before."
        actions={
          value && (
            <Badge tone={value.intact ? 'good' : 'bad'}>
              {value.intact ? 'chain holds' : 'chain is broken'}
            </Badge>
          )
        }
        wide
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
                      {Object.entries(record.details).map(([name, detail]) => (
                        <span key={name}>
                          {name} <b>{typeof detail === 'string' ? detail : JSON.stringify(detail)}</b>
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
