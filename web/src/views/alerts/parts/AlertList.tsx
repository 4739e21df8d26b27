import type { ReactNode } from "react";
import { Link } from "../../../router/router";
import { Badge } from "../../../shared/Badge";
import { Button } from "../../../shared/Button";
import { Level } from "../../../shared/Level";
import { useNow } from "../../../shared/now";
import { Empty, ErrorState, Loading } from "../../../shared/states";
import { Time } from "../../../shared/Time";
import { shownCount, shownDuration } from "../../../shared/times";
import { matchersOf } from "../engine/matchers";
import { logsAddress, secondsOf, sentence } from "../engine/rule";
import { type Alert, type StoredRule, useAlerts } from "../queries";
import type { AlertsState, UpdateAlerts } from "../state";

const STATES = [
  ["", "All"],
  ["firing", "Firing"],
  ["resolved", "Over"],
] as const;

/** What fires and what did lately; of one rule where `only` is given. */
export function AlertList({
  rules,
  state,
  update,
  only,
}: {
  rules: StoredRule[];
  state: AlertsState;
  update: UpdateAlerts;
  only?: string;
}) {
  const rule = only ?? state.rule;
  const { data, error, refetch } = useAlerts({ rule, state: state.state });
  return (
    <section aria-label="Alerts" className="alerts-list">
      <div className="row-actions">
        <fieldset className="segmented" aria-label="State">
          {STATES.map(([id, name]) => (
            <Button key={id} kind="quiet" aria-pressed={state.state === id} onClick={() => update({ state: id })}>
              {name}
            </Button>
          ))}
        </fieldset>
        {only === undefined && <RuleChoice rules={rules} rule={state.rule} onRule={(name) => update({ rule: name })} />}
      </div>
      <Found error={error} data={data} onRetry={() => void refetch()}>
        {data?.alerts.length === 0 ? (
          <Empty
            title={only !== undefined && state.state === "" ? "It has not fired yet" : "Nothing here"}
            actions={
              rules.length === 0 && (
                <Button kind="primary" onClick={() => update({ edit: "+" })}>
                  Make a rule
                </Button>
              )
            }
          >
            {rules.length === 0
              ? "There is no rule yet. A rule says what must be so in the logs; when it is, somebody is told."
              : "What a rule fires on is shown here, and stays for a while when it is over."}
          </Empty>
        ) : (
          <ul className="alerts-items">
            {data?.alerts.map((alert) => (
              <AlertItem
                key={alert.id}
                alert={alert}
                rule={rules.find((each) => each.rule.name === alert.rule)}
                isOpen={state.alert === alert.id}
                update={update}
              />
            ))}
          </ul>
        )}
      </Found>
    </section>
  );
}

export function RuleChoice({
  rules,
  rule,
  onRule,
}: {
  rules: StoredRule[];
  rule: string;
  onRule: (name: string) => void;
}) {
  const names = rules.map((each) => String(each.rule.name));
  return (
    <select className="input" aria-label="Rule" value={rule} onChange={(event) => onRule(event.target.value)}>
      <option value="">All rules</option>
      {rule !== "" && !names.includes(rule) && <option>{rule}</option>}
      {names.map((name) => (
        <option key={name}>{name}</option>
      ))}
    </select>
  );
}

/** An answer, or why there is none yet. */
export function Found({
  data,
  error,
  onRetry,
  children,
}: {
  data: unknown;
  error: Error | null;
  onRetry: () => void;
  children: ReactNode;
}) {
  if (data !== undefined) return children;
  if (error !== null) return <ErrorState problem={error} permission="alert" onRetry={onRetry} />;
  return <Loading />;
}

function AlertItem({
  alert,
  rule,
  isOpen,
  update,
}: {
  alert: Alert;
  rule: StoredRule | undefined;
  isOpen: boolean;
  update: UpdateAlerts;
}) {
  const labels = Object.entries(alert.labels).filter(([name]) => name !== "rule" && name !== "severity");
  return (
    <li className="alerts-item" data-state={alert.state}>
      <button
        type="button"
        className="alerts-line"
        aria-expanded={isOpen}
        onClick={() => update({ alert: isOpen ? "" : alert.id })}
      >
        <span className="alerts-state">
          {alert.state === "firing" ? <Badge tone="bad">firing</Badge> : <Badge>over</Badge>}
        </span>
        <span className="alerts-severity">{alert.severity}</span>
        <strong>{alert.rule}</strong>
        <Labels labels={labels} />
        <span className="alerts-when muted">
          <Time at={alert.started_at} /> · <Lasted alert={alert} />
        </span>
      </button>
      {isOpen && <AlertDetails alert={alert} rule={rule} update={update} />}
    </li>
  );
}

function Lasted({ alert }: { alert: Alert }) {
  const nowMs = useNow();
  const endMs = alert.ended_at === null ? nowMs : Date.parse(alert.ended_at);
  const lasted = shownDuration(Math.max(endMs - Date.parse(alert.started_at), 0));
  return <span className="nowrap">{alert.ended_at === null ? `for ${lasted}` : `lasted ${lasted}`}</span>;
}

function Labels({ labels }: { labels: [string, string][] }) {
  if (labels.length === 0) return null;
  return (
    <span className="labels">
      {labels.map(([name, value]) => (
        <span className="label" key={name}>
          {name}={value}
        </span>
      ))}
    </span>
  );
}

function AlertDetails({ alert, rule, update }: { alert: Alert; rule: StoredRule | undefined; update: UpdateAlerts }) {
  const document = rule?.rule ?? { name: alert.rule };
  const windowMs = (secondsOf(document.window as string | undefined) || 300) * 1_000;
  const from = new Date(Date.parse(alert.started_at) - windowMs).toISOString();
  return (
    <div className="alerts-details">
      {alert.summary !== "" && <p>{alert.summary}</p>}
      <dl className="facts">
        {rule !== undefined && (
          <>
            <dt>Fires on</dt>
            <dd>{sentence(document)}</dd>
          </>
        )}
        <dt>Value</dt>
        <dd>
          {Number(alert.value.toPrecision(4))}{" "}
          <span className="muted">({shownCount(alert.logs_in_window)} logs in the window)</span>
        </dd>
        <dt>Since</dt>
        <dd>
          <Time at={alert.started_at} />
          {alert.ended_at !== null && (
            <>
              {" "}
              to <Time at={alert.ended_at} />
            </>
          )}
        </dd>
        {alert.reason !== "" && (
          <>
            <dt>Over because</dt>
            <dd>{alert.reason}</dd>
          </>
        )}
        {alert.runbook !== null && (
          <>
            <dt>Runbook</dt>
            <dd>
              <a href={alert.runbook} rel="noreferrer noopener" target="_blank">
                {alert.runbook}
              </a>
            </dd>
          </>
        )}
      </dl>
      {alert.logs.length > 0 && (
        <ul className="alerts-logs" aria-label="Newest logs">
          {alert.logs.map((log) => (
            <li key={log.id} className="mono">
              <Time at={log.timestamp} /> <Level level={log.level} /> <span className="muted">{log.service_name}</span>{" "}
              <Link href={`/?${new URLSearchParams({ from: "all", log: log.id })}`}>{log.message}</Link>
            </li>
          ))}
        </ul>
      )}
      <div className="row-actions">
        <Link className="button" href={logsAddress(document, alert.labels, from, alert.ended_at)}>
          Show the logs
        </Link>
        <Button
          onClick={() =>
            update({ silence: matchersOf(alert.rule, (document.group_by ?? []) as string[], alert.labels) })
          }
        >
          Silence …
        </Button>
        {rule !== undefined && (
          <Button onClick={() => update({ tab: "rules", rule: alert.rule, alert: "" })}>The rule</Button>
        )}
      </div>
    </div>
  );
}
