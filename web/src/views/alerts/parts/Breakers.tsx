import type { UseQueryResult } from "@tanstack/react-query";
import type { Schemas } from "../../../api/client";
import { Badge, type Tone } from "../../../shared/Badge";
import { Button } from "../../../shared/Button";
import { Empty } from "../../../shared/states";
import { Time } from "../../../shared/Time";
import { shownCount } from "../../../shared/times";
import { resetBreaker, useChange } from "../queries";
import { Found } from "./AlertList";

const STATES: Record<string, [Tone, string]> = {
  closed: ["good", "closed: messages pass"],
  open: ["bad", "open: messages are held back"],
  half_open: ["warn", "half open: one may pass"],
};

/** Where the breaker of each rule and channel stands. */
export function Breakers({ found }: { found: UseQueryResult<Schemas["BreakerList"]> }) {
  const reset = useChange(
    resetBreaker,
    ({ rule, channel }) => `The breaker of ${rule} and ${channel} closes within seconds`,
  );
  const breakers = found.data?.breakers ?? [];
  return (
    <Found data={found.data} error={found.error} onRetry={() => void found.refetch()}>
      {breakers.length === 0 ? (
        <Empty title="No message went anywhere lately">
          A rule that sends too many messages to a channel is held back there by its breaker, and says how much came
          meanwhile.
        </Empty>
      ) : (
        <table className="values">
          <thead>
            <tr>
              <th>State</th>
              <th>Rule</th>
              <th>Channel</th>
              <th>Since</th>
              <th className="number">Held back</th>
              <th className="number">Opened lately</th>
              <th>
                <span className="hidden-text">Actions</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {breakers.map((breaker) => {
              const [tone, words] = STATES[breaker.state] ?? ["plain", breaker.state];
              return (
                <tr key={`${breaker.rule} ${breaker.channel}`}>
                  <td data-head="State">
                    <Badge tone={tone}>{words}</Badge>
                  </td>
                  <td data-head="Rule">{breaker.rule}</td>
                  <td data-head="Channel">{breaker.channel}</td>
                  <td data-head="Since">
                    <Time at={breaker.since} />
                  </td>
                  <td data-head="Held back" className="number">
                    {shownCount(breaker.held)}
                  </td>
                  <td data-head="Opened lately" className="number">
                    {shownCount(breaker.opened)}
                  </td>
                  <td className="number">
                    {breaker.state !== "closed" && (
                      <Button
                        disabled={reset.isPending}
                        onClick={() => reset.mutate({ rule: breaker.rule, channel: breaker.channel })}
                      >
                        Close it
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
