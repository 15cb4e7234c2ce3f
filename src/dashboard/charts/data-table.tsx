import type { JSX } from 'preact';
import { useState } from 'preact/hooks';

/** Rows that are shown; a chart may have thousands. */
const MOST_ROWS = 100;

/** The figures behind a chart, for whoever cannot see it or wants to copy them. Rows are made when it is opened. */
export function DataTable(props: {
  readonly title: string;
  readonly head: readonly string[];
  readonly rows: () => readonly (readonly string[])[];
}): JSX.Element {
  const [isOpen, setOpen] = useState(false);
  const rows = isOpen ? props.rows().slice(0, MOST_ROWS) : [];
  return (
    <details
      class="data"
      onToggle={(event) => {
        setOpen(event.currentTarget.open);
      }}
    >
      <summary>
        Figures<span class="sr"> of {props.title}</span>
      </summary>
      {isOpen && (
        <div class="scroll">
          <table>
            <thead>
              <tr>
                {props.head.map((name, index) => (
                  <th key={name} class={index > 0 ? 'number' : ''}>
                    {name}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {rows.map((row, index) => (
                <tr key={index}>
                  {row.map((cell, place) => (
                    <td key={place} class={place > 0 ? 'number' : ''}>
                      {cell}
                    </td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </details>
  );
}
