import { shownCount } from "../../../shared/times";
import { correlationWords, shownValue } from "../engine/figures";
import { METRICS, useStatistics } from "../queries";

const ERRORS_SHOWN = 5;

/** Over all connections: medians, the most common errors, whether errors and latency go together. */
export function StatisticsPanel() {
  const { data } = useStatistics();
  if (data === undefined) return <div className="statistics-place" />;
  const { spearman, n } = data.errors_and_latency;
  return (
    <div className="cards statistics">
      <section className="card" aria-label="Medians">
        <h2>Medians of {shownCount(data.connections)} connections</h2>
        <dl className="facts">
          {data.medians.map(({ metric, unit, median, connections }) => (
            <div className="facts-row" key={metric}>
              <dt>{METRICS.find((each) => each.metric === metric)?.name ?? metric}</dt>
              <dd>
                {shownValue(median, unit)} <span className="muted">of {shownCount(connections)}</span>
              </dd>
            </div>
          ))}
        </dl>
      </section>
      <section className="card" aria-label="Most common errors">
        <h2>Most common errors</h2>
        {data.common_errors.length === 0 ? (
          <p className="muted">No errors at all.</p>
        ) : (
          <ol className="common-errors">
            {data.common_errors.slice(0, ERRORS_SHOWN).map(({ message, count, connections }) => (
              <li key={message}>
                <span className="mono">{message || "(others)"}</span>{" "}
                <span className="muted nowrap">
                  {shownCount(count)} in {shownCount(connections)}
                </span>
              </li>
            ))}
          </ol>
        )}
      </section>
      <section className="card" aria-label="Errors and latency">
        <h2>Errors and median latency</h2>
        <p>
          {correlationWords(spearman)}
          {spearman !== null && (
            <>
              {" "}
              <span className="nowrap">(Spearman’s ρ {spearman.toFixed(2)})</span>
            </>
          )}
        </p>
        <p className="muted">n = {shownCount(n)} connections that have a latency</p>
      </section>
    </div>
  );
}
