import type { Schemas } from "../../../api/client";
import { Badge } from "../../../shared/Badge";
import { Distance, Time } from "../../../shared/Time";
import { shownCount } from "../../../shared/times";

const ROLES: Record<string, string> = {
  sealer: "opens, closes and drops tables",
  tier: "moves rows to files",
  alerts: "evaluates rules",
  patterns: "counts patterns",
  routes: "fills topics",
};

/** From the broker to the tables: how far writers are, who leads what, what could not be stored. */
export function Pipeline({ status }: { status: Schemas["StatusAnswer"] }) {
  const lag = status.partitions.reduce((sum, each) => sum + (each.lag_records ?? 0), 0);
  const halted = status.partitions.filter((each) => each.halted !== null).length;
  return (
    <>
      <section className="card" aria-label="Writers">
        <h2>
          Writers{" "}
          {halted > 0 ? (
            <Badge tone="bad">{halted} halted</Badge>
          ) : status.writers.length === 0 ? (
            <Badge tone="bad">nobody stores</Badge>
          ) : lag > 0 ? (
            <Badge tone="busy">{shownCount(lag)} records behind</Badge>
          ) : (
            <Badge tone="good">all is stored</Badge>
          )}
        </h2>
        <table className="values">
          <thead>
            <tr>
              <th>Partition</th>
              <th>Writer</th>
              <th className="number">Stored offset</th>
              <th className="number">End</th>
              <th className="number">Lag, records</th>
              <th>Stored to</th>
            </tr>
          </thead>
          <tbody>
            {status.partitions.map((each) => (
              <tr key={each.partition}>
                <td data-head="Partition">{each.partition}</td>
                <td data-head="Writer">{each.writer ?? <Badge tone="warn">nobody</Badge>}</td>
                <td data-head="Stored" className="number">
                  {shownCount(each.stored_offset)}
                </td>
                <td data-head="End" className="number">
                  {each.end_offset === null ? "not known" : shownCount(each.end_offset)}
                </td>
                <td data-head="Lag" className="number">
                  {each.lag_records === null ? "not known" : shownCount(each.lag_records)}
                </td>
                <td data-head="Stored to">
                  {each.halted !== null ? (
                    <span>
                      <Badge tone="bad">halted</Badge> {each.halted}
                    </span>
                  ) : each.stored_to === null ? (
                    "nothing yet"
                  ) : (
                    <Distance at={each.stored_to} />
                  )}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </section>
      <div className="cards">
        <section className="card" aria-label="Who leads">
          <h2>Who leads</h2>
          <dl className="facts">
            {status.roles.map(({ name, leader }) => (
              <div className="facts-row" key={name}>
                <dt>
                  {name} <span className="muted">{ROLES[name] ?? ""}</span>
                </dt>
                <dd>{leader ?? <Badge tone="warn">nobody now</Badge>}</dd>
              </div>
            ))}
          </dl>
        </section>
        <section className="card" aria-label="Dead letters">
          <h2>Dead letters</h2>
          {status.dead_letters.length === 0 ? (
            <p className="muted">No line was put aside.</p>
          ) : (
            <>
              <table className="values">
                <thead>
                  <tr>
                    <th>Reason</th>
                    <th>Service</th>
                    <th className="number">Lines</th>
                    <th>Newest</th>
                  </tr>
                </thead>
                <tbody>
                  {status.dead_letters.map((each) => (
                    <tr key={each.reason + each.service_name}>
                      <td data-head="Reason">{each.reason}</td>
                      <td data-head="Service">{each.service_name || <span className="muted">not known</span>}</td>
                      <td data-head="Lines" className="number">
                        {shownCount(each.count)}
                      </td>
                      <td data-head="Newest">
                        <span>
                          <Time at={each.newest} /> <span className="muted">({each.newest_id})</span>
                        </span>
                      </td>
                    </tr>
                  ))}
                </tbody>
              </table>
              <p className="muted status-hint">
                <code>logfeed dead show NUMBER</code>, <code>replay</code> and <code>drop</code> on the server.
              </p>
            </>
          )}
        </section>
      </div>
    </>
  );
}
