/** Alerts: what fires and did, the rules behind it, what keeps them quiet. The address holds the state (state.ts). */
import { lazy, Suspense } from "react";
import { useSearch } from "../../router/router";
import { Button } from "../../shared/Button";
import { ErrorState, Loading } from "../../shared/states";
import { Tabs } from "../../shared/Tabs";
import { Distance } from "../../shared/Time";
import "./alerts.css";
import { AlertList } from "./parts/AlertList";
import { Breakers } from "./parts/Breakers";
import { Messages } from "./parts/Messages";
import { Rules } from "./parts/Rules";
import { SilenceDialog } from "./parts/SilenceDialog";
import { Silences } from "./parts/Silences";
import { useAlerts, useBreakers, useRules, useSilences } from "./queries";
import { ALERTS } from "./state";

const RuleEditor = lazy(() => import("./parts/RuleEditor"));

export default function AlertsView() {
  const [state, update] = useSearch(ALERTS);
  const firing = useAlerts({ state: "firing" });
  const rules = useRules();
  const silences = useSilences();
  const breakers = useBreakers();

  if (rules.error !== null && rules.data === undefined) {
    return <ErrorState problem={rules.error} permission="alert" onRetry={() => void rules.refetch()} />;
  }
  if (rules.data === undefined) return <Loading label="Asking for rules" />;
  if (state.edit !== "") {
    return (
      <Suspense fallback={<Loading />}>
        <RuleEditor key={state.edit} rules={rules.data.rules} state={state} update={update} />
      </Suspense>
    );
  }
  const count = firing.data?.alerts.length;
  const status = firing.data?.status;
  const active = silences.data?.silences.filter((each) => each.state !== "ended").length;
  const open = breakers.data?.breakers.filter((each) => each.state !== "closed").length;
  return (
    <div className="page">
      <div className="page-head">
        <h1 className="alerts-title" data-firing={count !== undefined && count > 0}>
          {count === undefined
            ? "Alerts"
            : count === 0
              ? "Nothing fires"
              : `${count} ${count === 1 ? "alert fires" : "alerts fire"}`}
        </h1>
        {status?.watermark != null && status.leader !== null && (
          <span className="muted">
            logs until <Distance at={status.watermark} /> are looked at
          </span>
        )}
        <span className="spread" />
        <Button onClick={() => update({ silence: "+" })}>Silence …</Button>
        <Button kind="primary" onClick={() => update({ edit: "+" })}>
          New rule
        </Button>
      </div>
      {status !== undefined && status.leader === null && (
        <p className="note" data-tone="warn" role="status">
          <strong>Nobody evaluates rules now.</strong> Nothing fires and nothing is told until{" "}
          <code>logfeed alert</code> runs (<code>logfeed up</code> runs it).
        </p>
      )}
      {status !== undefined && status.gaps > 0 && (
        <p className="note" data-tone="warn">
          Records were gone before rules saw them, {status.gaps} times since the evaluator began.
        </p>
      )}
      <Tabs
        label="Parts of alerts"
        current={state.tab}
        onTab={(tab) => update({ tab, alert: "", rule: "" })}
        tabs={[
          { id: "alerts", name: "Alerts", count },
          { id: "rules", name: "Rules", count: rules.data.rules.length },
          { id: "silences", name: "Silences", count: active },
          { id: "breakers", name: "Breakers", count: open },
          { id: "messages", name: "Messages" },
        ]}
      />
      {state.tab === "alerts" && <AlertList rules={rules.data.rules} state={state} update={update} />}
      {state.tab === "rules" && <Rules rules={rules.data.rules} state={state} update={update} />}
      {state.tab === "silences" && <Silences found={silences} onNew={() => update({ silence: "+" })} />}
      {state.tab === "breakers" && <Breakers found={breakers} />}
      {state.tab === "messages" && <Messages rules={rules.data.rules} state={state} update={update} />}
      {state.silence !== "" && (
        <SilenceDialog text={state.silence === "+" ? "" : state.silence} onClose={() => update({ silence: "" })} />
      )}
    </div>
  );
}
