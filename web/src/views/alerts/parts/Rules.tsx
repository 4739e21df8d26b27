import { useState } from "react";
import { Link } from "../../../router/router";
import { Badge } from "../../../shared/Badge";
import { Button } from "../../../shared/Button";
import { Dialog } from "../../../shared/Dialog";
import { Empty } from "../../../shared/states";
import { Time } from "../../../shared/Time";
import { shownCount } from "../../../shared/times";
import { matchersText } from "../engine/matchers";
import { logsAddress, type RuleDocument, sentence } from "../engine/rule";
import { deleteRule, type StoredRule, useChange } from "../queries";
import type { AlertsState, UpdateAlerts } from "../state";
import { AlertList } from "./AlertList";

/** Rules by name; the chosen one with its state and history. */
export function Rules({ rules, state, update }: { rules: StoredRule[]; state: AlertsState; update: UpdateAlerts }) {
  if (rules.length === 0) {
    return (
      <Empty
        title="There is no rule yet"
        actions={
          <Button kind="primary" onClick={() => update({ edit: "+" })}>
            New rule
          </Button>
        }
      >
        A rule says what must be so in the logs of a window of time, such as ten errors in five minutes. When it is,
        somebody is told, and told again when it is over.
      </Empty>
    );
  }
  const chosen = rules.find((each) => each.rule.name === state.rule);
  return (
    <div className="rules" data-chosen={chosen !== undefined}>
      <ul className="rules-list" aria-label="Rules">
        {rules.map((each) => {
          const name = String(each.rule.name);
          return (
            <li key={name}>
              <button
                type="button"
                className="rules-item"
                aria-current={name === state.rule ? "true" : undefined}
                onClick={() => update({ rule: name, alert: "", state: "" })}
              >
                <span className="rules-name">{name}</span>
                <RuleState rule={each} />
                <span className="muted rules-sentence">{sentence(each.rule as RuleDocument)}</span>
              </button>
            </li>
          );
        })}
      </ul>
      {chosen === undefined ? (
        <div className="rules-none">
          <Empty title={state.rule === "" ? "Choose a rule" : `There is no rule ${state.rule}`}>
            Its state, its history and what it is about are shown here.
          </Empty>
        </div>
      ) : (
        <RuleDetails key={state.rule} rule={chosen} rules={rules} state={state} update={update} />
      )}
    </div>
  );
}

function RuleState({ rule }: { rule: StoredRule }) {
  if (rule.problem !== null) return <Badge tone="warn">problem</Badge>;
  if (rule.firing > 0)
    return <Badge tone="bad">{rule.firing === 1 ? "firing" : `${shownCount(rule.firing)} firing`}</Badge>;
  return <Badge tone="good">quiet</Badge>;
}

function RuleDetails({
  rule,
  rules,
  state,
  update,
}: {
  rule: StoredRule;
  rules: StoredRule[];
  state: AlertsState;
  update: UpdateAlerts;
}) {
  const [isDeleting, setIsDeleting] = useState(false);
  const document = rule.rule as RuleDocument;
  const name = document.name ?? "";
  const isOfFile = rule.owner === "file";
  const remove = useChange(deleteRule, (gone) => `Rule ${gone} is no more`);
  return (
    <section className="card rules-details" aria-label={`Rule ${name}`}>
      <div className="page-head">
        <Button kind="quiet" className="rules-back" onClick={() => update({ rule: "" })}>
          ← Rules
        </Button>
        <h2>{name}</h2>
        <RuleState rule={rule} />
        <span className="spread" />
        <div className="row-actions">
          <Button onClick={() => update({ edit: name })}>{isOfFile ? "Try on the past" : "Change or try"}</Button>
          <Button onClick={() => update({ silence: matchersText([{ label: "rule", op: "=", value: name }]) })}>
            Silence …
          </Button>
          {!isOfFile && <Button onClick={() => setIsDeleting(true)}>Delete …</Button>}
        </div>
      </div>
      {rule.problem !== null && (
        <p className="note" data-tone="warn">
          {rule.problem}
        </p>
      )}
      {document.summary !== undefined && document.summary !== "" && <p>{document.summary}</p>}
      <dl className="facts">
        <dt>Fires on</dt>
        <dd>{sentence(document)}</dd>
        <dt>Logs</dt>
        <dd>
          <Link href={logsAddress(document, {}, "-1h", null)} className="mono">
            {document.query === undefined || document.query === "" ? "all" : document.query}
          </Link>
        </dd>
        <dt>Severity</dt>
        <dd>{document.severity ?? "warning"}</dd>
        <dt>Told to</dt>
        <dd>{(document.channels ?? []).join(", ") || <span className="muted">the default channels</span>}</dd>
        <dt>Watches</dt>
        <dd>
          {shownCount(rule.groups)} {rule.groups === 1 ? "group" : "groups"}
          {rule.late > 0 && `, ${shownCount(rule.late)} logs came too late to count`}
          {rule.overflowed > 0 && `, ${shownCount(rule.overflowed)} logs of groups beyond groups_max`}
        </dd>
        <dt>Owner</dt>
        <dd>
          {isOfFile ? "a file: it is changed there" : `${rule.owner}, last changed by ${rule.changed_by}`}{" "}
          <span className="muted">
            (<Time at={rule.changed_at} />, revision {rule.revision})
          </span>
        </dd>
      </dl>
      <h2>History</h2>
      <AlertList rules={rules} state={state} update={update} only={name} />
      {isDeleting && (
        <Dialog title={`Delete ${name}?`} onClose={() => setIsDeleting(false)}>
          <p>What fires of it is resolved, and silences that name it end. Its history stays for a while.</p>
          <div className="row-actions dialog-actions">
            <Button onClick={() => setIsDeleting(false)}>Keep it</Button>
            <Button
              kind="primary"
              disabled={remove.isPending}
              onClick={() => {
                setIsDeleting(false);
                remove.mutate(name, { onSuccess: () => update({ rule: "" }) });
              }}
            >
              Delete the rule
            </Button>
          </div>
        </Dialog>
      )}
    </section>
  );
}
