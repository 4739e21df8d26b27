import type { Schemas } from "../../../api/client";
import { Empty } from "../../../shared/states";
import { shownCount } from "../../../shared/times";

const KINDS: Record<string, string> = {
  errors: "errors of all services",
  service: "logs of one service",
  route: "a route of the settings",
};

/** Derived topics and how far they reach. */
export function Topics({ topics }: { topics: Schemas["TopicModel"][] }) {
  if (topics.length === 0) {
    return (
      <Empty title="No topic that you may read">
        Topics are set under <code>routing</code> and <code>routes</code>; each has one log per record.
      </Empty>
    );
  }
  return (
    <table className="values">
      <thead>
        <tr>
          <th>Topic</th>
          <th>What</th>
          <th className="number">Records kept</th>
          <th>Offsets by partition</th>
        </tr>
      </thead>
      <tbody>
        {topics.map(({ name, kind, description, partitions }) => (
          <tr key={name}>
            <td data-head="Topic" className="mono">
              {name}
            </td>
            <td data-head="What">{description || KINDS[kind]}</td>
            <td data-head="Records" className="number">
              {shownCount(partitions.reduce((sum, each) => sum + each.next_offset - each.first_offset, 0))}
            </td>
            <td data-head="Offsets">
              <span className="labels">
                {partitions.map(({ partition, first_offset, next_offset }) => (
                  <span className="label" key={partition}>
                    {partition}: {shownCount(first_offset)} … {shownCount(next_offset)}
                  </span>
                ))}
              </span>
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
