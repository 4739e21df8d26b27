import type { Schemas } from "../../../api/client";
import { Badge } from "../../../shared/Badge";
import { Empty } from "../../../shared/states";
import { Distance, Time } from "../../../shared/Time";
import { shownBytes, shownCount } from "../../../shared/times";

const MEANINGS: Record<string, string> = {
  hot: "rows in tables",
  copied: "files whose tables are there too",
  warm: "files on disk",
  cold: "objects",
};
const DUE: [keyof Schemas["DueModel"], string][] = [
  ["tables_to_write", "tables to write"],
  ["tables_to_switch", "tables to let go"],
  ["segments_to_cool", "files for object storage"],
  ["segments_past_age", "files past their age"],
  ["segments_to_remove", "retired files to remove"],
];

/** How much is where, how old it is, and what is due. */
export function Tiers({ status }: { status: Schemas["StatusAnswer"] }) {
  if (status.tiers.length === 0)
    return <Empty title="Nothing is stored yet">Tables are made when writers begin.</Empty>;
  const most = Math.max(...status.tiers.map((each) => each.bytes), 1);
  const due = DUE.filter(([name]) => status.due[name] > 0);
  const leader = status.roles.find(({ name }) => name === "tier")?.leader ?? null;
  return (
    <>
      <section className="card" aria-label="Tiers">
        <h2>Tiers</h2>
        <table className="values">
          <thead>
            <tr>
              <th>Tier</th>
              <th>Class</th>
              <th className="number">Pieces</th>
              <th className="number">Rows</th>
              <th className="number">Bytes</th>
              <th>
                <span className="hidden-text">Share</span>
              </th>
              <th>Oldest</th>
              <th>Newest</th>
            </tr>
          </thead>
          <tbody>
            {status.tiers.map((each) => (
              <tr key={each.tier + each.retention_class}>
                <td data-head="Tier">
                  <span>
                    <strong>{each.tier}</strong> <span className="muted">{MEANINGS[each.tier]}</span>
                  </span>
                </td>
                <td data-head="Class">{each.retention_class}</td>
                <td data-head="Pieces" className="number">
                  {shownCount(each.pieces)}
                </td>
                <td data-head="Rows" className="number">
                  {shownCount(each.rows)}
                </td>
                <td data-head="Bytes" className="number">
                  {shownBytes(each.bytes)}
                </td>
                <td className="share" aria-hidden="true">
                  <span style={{ width: `${(each.bytes / most) * 100}%` }} />
                </td>
                <td data-head="Oldest">{each.oldest === null ? "—" : <Distance at={each.oldest} />}</td>
                <td data-head="Newest">{each.newest === null ? "—" : <Time at={each.newest} />}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </section>
      <section className="card" aria-label="Due">
        <h2>
          Due{" "}
          {leader === null ? (
            <Badge tone="warn">nobody moves rows: run logfeed tier</Badge>
          ) : (
            <Badge tone="good">{leader} moves rows</Badge>
          )}
        </h2>
        {due.length === 0 ? (
          <p className="muted">Nothing is to be moved now.</p>
        ) : (
          <ul>
            {due.map(([name, text]) => (
              <li key={name}>
                {shownCount(status.due[name])} {text}
                {name === "tables_to_write" && ` (${shownCount(status.due.rows_to_write)} rows)`}
              </li>
            ))}
          </ul>
        )}
      </section>
    </>
  );
}
