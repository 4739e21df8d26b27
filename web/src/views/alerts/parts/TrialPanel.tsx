import { useEffect, useRef, useState } from "react";
import { type ApiProblem, asProblem } from "../../../api/problem";
import { useZone } from "../../../app/theme";
import { Badge } from "../../../shared/Badge";
import { Button } from "../../../shared/Button";
import { Loading } from "../../../shared/states";
import { Time } from "../../../shared/Time";
import { shownCount, shownMoment } from "../../../shared/times";
import type { RuleDocument } from "../engine/rule";
import { linesOf, placeOf } from "../engine/spans";
import { type Trial, tryRule } from "../queries";
import type { AlertsState } from "../state";

const SINCE: [AlertsState["since"], string][] = [
  ["-1h", "the last hour"],
  ["-6h", "6 hours"],
  ["-1d", "a day"],
  ["-7d", "7 days"],
  ["-30d", "30 days"],
];
const LINES_MAX = 30;
const DECISIONS_MAX = 200;

/** When the rule would have fired. read: the document as it is written now, null where it cannot be read. */
export function TrialPanel({
  since,
  onSince,
  read,
  onProblem,
}: {
  since: AlertsState["since"];
  onSince: (since: AlertsState["since"]) => void;
  read: () => RuleDocument | null;
  onProblem: (problem: ApiProblem) => void;
}) {
  const [trial, setTrial] = useState<Trial | null>(null);
  const [isRunning, setIsRunning] = useState(false);
  const running = useRef<AbortController | null>(null);
  useEffect(() => () => running.current?.abort(), []);

  const run = async () => {
    const document = read();
    if (document === null) return;
    const controller = new AbortController();
    running.current = controller;
    setIsRunning(true);
    try {
      // A rule that has no name yet can be tried all the same.
      setTrial(await tryRule({ ...document, name: document.name || "unnamed" }, since, controller.signal));
    } catch (error) {
      if (!controller.signal.aborted) onProblem(asProblem(error));
    } finally {
      setIsRunning(false);
    }
  };

  return (
    <section className="card trial" aria-label="Try on the past">
      <h2>Try on the past</h2>
      <div className="row-actions">
        <select
          className="input"
          aria-label="Tried on"
          value={since}
          onChange={(event) => onSince(event.target.value as AlertsState["since"])}
        >
          {SINCE.map(([value, name]) => (
            <option key={value} value={value}>
              {name}
            </option>
          ))}
        </select>
        {isRunning ? (
          <Button onClick={() => running.current?.abort()}>Stop</Button>
        ) : (
          <Button onClick={() => void run()}>Try it</Button>
        )}
      </div>
      {isRunning ? (
        <Loading label="Looking through stored logs" />
      ) : trial === null ? (
        <p className="muted">
          Shows when the rule, as it is written here, would have fired on stored logs, and how many messages would have
          come of it. Nothing is kept.
        </p>
      ) : (
        <Result trial={trial} />
      )}
    </section>
  );
}

function Result({ trial }: { trial: Trial }) {
  const lines = linesOf(trial.decisions);
  return (
    <>
      <p role="status">
        {trial.fired === 0 ? (
          <>
            It would <strong>not have fired</strong>:{" "}
          </>
        ) : (
          <>
            It would have fired <strong>{trial.fired === 1 ? "once" : `${shownCount(trial.fired)} times`}</strong>, with{" "}
            <strong>{trial.messages === 1 ? "one message" : `${shownCount(trial.messages)} messages`}</strong> to each
            channel:{" "}
          </>
        )}
        {shownCount(trial.logs)} logs match the query.
        {trial.breaker_opened > 0 &&
          ` The circuit breaker would have opened ${shownCount(trial.breaker_opened)} times.`}
        {trial.overflowed > 0 && ` ${shownCount(trial.overflowed)} logs were of more groups than groups_max.`}
      </p>
      {!trial.is_complete && (
        <p className="note" data-tone="warn">
          Tried until <Time at={trial.tried_through} /> only: there is more than a trial looks at. Try a shorter time,
          or a narrower query.
        </p>
      )}
      {lines.length > 0 && <Strip trial={trial} />}
      {trial.decisions.length > 0 && (
        <ul className="trial-decisions" aria-label="Decisions">
          {trial.decisions.slice(0, DECISIONS_MAX).map((each) => (
            <li key={each.at + each.state + JSON.stringify(each.labels)}>
              <Time at={each.at} /> {each.state === "firing" ? <Badge tone="bad">fires</Badge> : <Badge>is over</Badge>}{" "}
              <span className="muted">
                value {Number(each.value.toPrecision(4))}, {shownCount(each.logs_in_window)} logs
              </span>{" "}
              {Object.entries(each.labels).map(([name, value]) => (
                <span className="label" key={name}>
                  {name}={value}
                </span>
              ))}
            </li>
          ))}
          {trial.decisions.length + trial.decisions_left_out > DECISIONS_MAX && (
            <li className="muted">
              {shownCount(trial.decisions.length + trial.decisions_left_out - DECISIONS_MAX)} more are not shown
            </li>
          )}
        </ul>
      )}
    </>
  );
}

/** Time from left to right, a line for each group: where it would have fired. The list below says the same. */
function Strip({ trial }: { trial: Trial }) {
  const zone = useZone();
  const startMs = Date.parse(trial.start_time);
  const endMs = Date.parse(trial.end_time);
  const lines = linesOf(trial.decisions);
  return (
    <div className="trial-strip" aria-hidden="true">
      {lines.slice(0, LINES_MAX).map((line) => (
        <div className="trial-line" key={line.name}>
          {line.name !== "" && <span className="trial-name">{line.name}</span>}
          <div className="trial-track">
            {line.spans.map((span) => {
              const { left, width } = placeOf(span, startMs, endMs);
              return (
                <span key={span.startMs} className="trial-span" style={{ left: `${left}%`, width: `${width}%` }} />
              );
            })}
          </div>
        </div>
      ))}
      {lines.length > LINES_MAX && <span className="muted">{lines.length - LINES_MAX} more groups</span>}
      <div className="trial-axis muted">
        <span>{shownMoment(trial.start_time, zone)}</span>
        <span>{shownMoment(trial.end_time, zone)}</span>
      </div>
    </div>
  );
}
