import { Badge, type Tone } from "../../../shared/Badge";
import { Empty } from "../../../shared/states";
import { Time } from "../../../shared/Time";
import { type StoredRule, useMessages } from "../queries";
import type { AlertsState, UpdateAlerts } from "../state";
import { Found, RuleChoice } from "./AlertList";

const STATES: Record<string, Tone> = { sent: "good", waiting: "busy", dead: "bad" };

/** What was told to whom, and what became of it. */
export function Messages({ rules, state, update }: { rules: StoredRule[]; state: AlertsState; update: UpdateAlerts }) {
  const found = useMessages(state.rule);
  const messages = found.data?.notifications ?? [];
  return (
    <section aria-label="Messages" className="alerts-list">
      <div className="row-actions">
        <RuleChoice rules={rules} rule={state.rule} onRule={(rule) => update({ rule })} />
      </div>
      <Found data={found.data} error={found.error} onRetry={() => void found.refetch()}>
        {messages.length === 0 ? (
          <Empty title="Nothing was told yet">
            Messages go to the channels of a rule: webhooks, chat, mail, a topic. Operators set them under{" "}
            <code>alerts.channels</code>.
          </Empty>
        ) : (
          <table className="values">
            <thead>
              <tr>
                <th>State</th>
                <th>When</th>
                <th>Channel</th>
                <th>Message</th>
                <th className="number">Attempts</th>
              </tr>
            </thead>
            <tbody>
              {messages.map((message) => (
                <tr key={message.id}>
                  <td data-head="State">
                    <Badge tone={STATES[message.state] ?? "plain"}>{message.state}</Badge>
                  </td>
                  <td data-head="When">
                    <Time at={message.created_at} />
                  </td>
                  <td data-head="Channel">{message.channel}</td>
                  <td data-head="Message">
                    <span>
                      {String(message.message.title ?? message.rule)}
                      {message.problem !== null && <span className="field-problem"> {message.problem}</span>}
                    </span>
                  </td>
                  <td data-head="Attempts" className="number">
                    {message.attempts}
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        )}
      </Found>
    </section>
  );
}
