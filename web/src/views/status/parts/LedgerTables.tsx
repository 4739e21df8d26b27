import type { Schemas } from "../../../api/client";
import { Link } from "../../../router/router";
import { Badge } from "../../../shared/Badge";
import { Empty } from "../../../shared/states";
import { shownCount } from "../../../shared/times";
import { OUTCOME_NAMES, OUTCOMES, type Reason, type ServiceSums, total } from "../engine/ledger";
import type { UpdateStatus } from "../state";

const SERVICES_MAX = 200;

/** The ledger in figures: that it adds up, why logs were not stored, and each service. */
export function LedgerTables({
  answer,
  services,
  reasons,
  update,
}: {
  answer: Schemas["LedgerAnswer"];
  services: ServiceSums[];
  reasons: Reason[];
  update: UpdateStatus;
}) {
  const unread = answer.unread == null ? null : total(answer.unread);
  if (services.length === 0) {
    return <Empty title="Nothing came in">In this time no log was received of services that you may read.</Empty>;
  }
  return (
    <>
      <div className="cards">
        <section className="card" aria-label="The ledger">
          <h2>The ledger</h2>
          <dl className="facts">
            <dt>Received</dt>
            <dd>{shownCount(answer.totals.received)}</dd>
            <dt>Not stored yet</dt>
            <dd>
              {unread === null
                ? "the broker does not say now"
                : `${shownCount(unread)} ${unread === 1 ? "record" : "records"} of the broker`}
            </dd>
            <dt>Adds up</dt>
            <dd>
              {answer.totals.balanced ? (
                <Badge tone="good">every log is accounted for</Badge>
              ) : (
                <Badge tone="warn">not now: received and stored are booked a moment apart</Badge>
              )}
            </dd>
          </dl>
        </section>
        <section className="card" aria-label="Not stored, and why">
          <h2>Not stored, and why</h2>
          {reasons.length === 0 ? (
            <p className="muted">Everything that was accepted was stored.</p>
          ) : (
            <table className="values">
              <thead>
                <tr>
                  <th>What</th>
                  <th>Reason</th>
                  <th className="number">Logs</th>
                </tr>
              </thead>
              <tbody>
                {reasons.map(({ outcome, reason, count }) => (
                  <tr key={outcome + reason}>
                    <td data-head="What">{OUTCOME_NAMES[outcome]}</td>
                    <td data-head="Reason">{reason}</td>
                    <td data-head="Logs" className="number">
                      {shownCount(count)}
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          )}
        </section>
      </div>
      <section className="card" aria-label="By service">
        <h2>By service</h2>
        <table className="values">
          <thead>
            <tr>
              <th>Service</th>
              <th className="number">received</th>
              {OUTCOMES.map((outcome) => (
                <th className="number" key={outcome}>
                  {OUTCOME_NAMES[outcome]}
                </th>
              ))}
              <th>
                <span className="hidden-text">Logs</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {services.slice(0, SERVICES_MAX).map((each) => (
              <tr key={each.service}>
                <td data-head="Service">
                  {each.service === "" ? (
                    <span className="muted">could not be read</span>
                  ) : (
                    <button type="button" className="link-button" onClick={() => update({ service: each.service })}>
                      {each.service}
                    </button>
                  )}
                </td>
                <td data-head="received" className="number">
                  {shownCount(each.received)}
                </td>
                {OUTCOMES.map((outcome) => (
                  <td data-head={OUTCOME_NAMES[outcome]} className="number" key={outcome}>
                    {each.counts[outcome] === 0 ? <span className="muted">0</span> : shownCount(each.counts[outcome])}
                  </td>
                ))}
                <td className="number">
                  {each.service !== "" && (
                    <Link href={`/?${new URLSearchParams({ service: each.service })}`}>logs</Link>
                  )}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
        {services.length > SERVICES_MAX && (
          <p className="muted">{shownCount(services.length - SERVICES_MAX)} more services</p>
        )}
      </section>
    </>
  );
}
