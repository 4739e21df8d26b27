import type { UseQueryResult } from "@tanstack/react-query";
import type { Schemas } from "../../../api/client";
import { Badge, type Tone } from "../../../shared/Badge";
import { Button } from "../../../shared/Button";
import { Empty } from "../../../shared/states";
import { Distance, Time } from "../../../shared/Time";
import { endSilence, useChange } from "../queries";
import { Found } from "./AlertList";

const STATES: Record<string, [Tone, string]> = {
  active: ["busy", "in force"],
  pending: ["plain", "to come"],
  ended: ["plain", "over"],
};

export function Silences({ found, onNew }: { found: UseQueryResult<Schemas["SilenceList"]>; onNew: () => void }) {
  const end = useChange(endSilence, () => "The silence is over");
  const silences = found.data?.silences ?? [];
  return (
    <Found data={found.data} error={found.error} onRetry={() => void found.refetch()}>
      {silences.length === 0 ? (
        <Empty title="Nothing is silenced" actions={<Button onClick={onNew}>Silence …</Button>}>
          A silence keeps alerts quiet that match its labels, for a time: they are shown, and nobody is told.
        </Empty>
      ) : (
        <table className="values">
          <thead>
            <tr>
              <th>State</th>
              <th>What</th>
              <th>From</th>
              <th>To</th>
              <th>Why</th>
              <th>
                <span className="hidden-text">Actions</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {silences.map((silence) => {
              const [tone, word] = STATES[silence.state] ?? ["plain", silence.state];
              return (
                <tr key={silence.id}>
                  <td data-head="State">
                    <Badge tone={tone}>{word}</Badge>
                  </td>
                  <td data-head="What">
                    <span className="labels">
                      {silence.matchers.map(({ label, op, value }) => (
                        <span className="label" key={label + op + value}>
                          {label}
                          {op}
                          {value}
                        </span>
                      ))}
                    </span>
                  </td>
                  <td data-head="From">
                    <Time at={silence.starts_at} />
                  </td>
                  <td data-head="To">
                    <span>
                      <Time at={silence.ends_at} />{" "}
                      <span className="muted">
                        (<Distance at={silence.ends_at} />)
                      </span>
                    </span>
                  </td>
                  <td data-head="Why">
                    <span>
                      {silence.comment} <span className="muted">— {silence.author}</span>
                    </span>
                  </td>
                  <td className="number">
                    {silence.state !== "ended" && (
                      <Button disabled={end.isPending} onClick={() => end.mutate(silence.id)}>
                        End now
                      </Button>
                    )}
                  </td>
                </tr>
              );
            })}
          </tbody>
        </table>
      )}
    </Found>
  );
}
