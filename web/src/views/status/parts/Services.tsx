import type { Schemas } from "../../../api/client";
import { Link } from "../../../router/router";
import { LEVELS, Level } from "../../../shared/Level";
import { Empty } from "../../../shared/states";
import { Distance } from "../../../shared/Time";
import { shownCount } from "../../../shared/times";
import { total } from "../engine/ledger";
import type { StatusState, UpdateStatus } from "../state";

const SHOWN_MAX = 200;

/** What each service has stored, ever; those heard of last first. */
export function Services({
  services,
  state,
  update,
}: {
  services: Schemas["ServiceModel"][];
  state: StatusState;
  update: UpdateStatus;
}) {
  if (services.length === 0)
    return <Empty title="No service has sent anything yet">Send a log, and its service is here.</Empty>;
  const wanted = state.find.toLowerCase();
  const found = services
    .filter(({ service_name }) => service_name.toLowerCase().includes(wanted))
    .sort((a, b) => b.last_seen.localeCompare(a.last_seen) || a.service_name.localeCompare(b.service_name));
  return (
    <>
      <input
        className="input status-find"
        type="search"
        aria-label="Find a service"
        placeholder="part of a name"
        value={state.find}
        onChange={(event) => update({ find: event.target.value }, { replace: true })}
      />
      {found.length === 0 ? (
        <Empty title="No such service">None of {shownCount(services.length)} services has this in its name.</Empty>
      ) : (
        <table className="values">
          <thead>
            <tr>
              <th>Service</th>
              <th>Heard of</th>
              <th className="number">Logs stored, ever</th>
              <th>By level</th>
            </tr>
          </thead>
          <tbody>
            {found.slice(0, SHOWN_MAX).map(({ service_name, last_seen, counts }) => (
              <tr key={service_name}>
                <td data-head="Service">
                  <Link href={`/?${new URLSearchParams({ service: service_name })}`}>{service_name}</Link>
                </td>
                <td data-head="Heard of">
                  <Distance at={last_seen} />
                </td>
                <td data-head="Logs, ever" className="number">
                  {shownCount(total(counts))}
                </td>
                <td data-head="By level">
                  <span className="level-counts">
                    {LEVELS.filter((level) => (counts[level] ?? 0) > 0).map((level) => (
                      <span key={level} className="nowrap">
                        <Level level={level} /> {shownCount(counts[level] ?? 0)}
                      </span>
                    ))}
                  </span>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      {found.length > SHOWN_MAX && (
        <p className="muted">{shownCount(found.length - SHOWN_MAX)} more: write part of a name</p>
      )}
    </>
  );
}
