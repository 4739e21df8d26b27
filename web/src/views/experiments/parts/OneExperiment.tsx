import { type KeyboardEvent, useCallback, useEffect, useMemo, useRef, useState, useSyncExternalStore } from "react";
import { useZone } from "../../../app/theme";
import { Explorer } from "../../../logs/explorer";
import { parseTime } from "../../../logs/times";
import { Link, navigate, useSearch } from "../../../router/router";
import { Button } from "../../../shared/Button";
import { LEVELS, Level } from "../../../shared/Level";
import { Empty, ErrorState, Loading } from "../../../shared/states";
import { Time } from "../../../shared/Time";
import { shownCount, shownMoment } from "../../../shared/times";
import { VirtualTable, type VirtualTableHandle } from "../../../shared/VirtualTable";
import { questionOf } from "../engine/question";
import { type Details, useExperiment } from "../queries";
import { ONE, type OneState } from "../state";
import { Lasting } from "./Lasting";
import { StatusBadge } from "./StatusBadge";

const AGENTS_MAX = 40;

export function OneExperiment({ id, notLive }: { id: string; notLive: string }) {
  const [state, update] = useSearch(ONE);
  const { data, error, refetch } = useExperiment(id);
  if (data === undefined) {
    if (error === null) return <Loading label="Asking for the experiment" />;
    if ("status" in error && error.status === 404) {
      return (
        <Empty
          title="There is no such experiment"
          actions={<Button onClick={() => navigate("/experiments")}>All experiments</Button>}
        >
          {id} is none, or you may not read its service.
        </Empty>
      );
    }
    return <ErrorState problem={error} onRetry={() => void refetch()} />;
  }
  return (
    <div className="experiment">
      <Head experiment={data} notLive={notLive} />
      <Filters experiment={data} state={state} update={update} />
      <Logs id={id} state={state} update={update} />
    </div>
  );
}

function Head({ experiment, notLive }: { experiment: Details; notLive: string }) {
  return (
    <header className="experiment-head">
      <Link href="/experiments" aria-label="All experiments">
        ←
      </Link>
      <h1>{experiment.name || experiment.id}</h1>
      {experiment.name !== "" && <span className="muted mono">{experiment.id}</span>}
      <span role="status">
        <StatusBadge status={experiment.status} />
      </span>
      <span>
        <span className="muted">lasted</span> <Lasting experiment={experiment} />
      </span>
      <span>
        <span className="muted">of</span> {experiment.service_name}
      </span>
      {experiment.started_at !== null && (
        <span>
          <span className="muted">since</span> <Time at={experiment.started_at} />
        </span>
      )}
      <span>
        {experiment.is_estimated && <span className="muted">newest </span>}
        {shownCount(experiment.logs)} <span className="muted">logs</span>
      </span>
      {notLive !== "" && <span className="muted">not live: {notLive}</span>}
    </header>
  );
}

type Update = (patch: Partial<OneState>, options?: { replace?: boolean }) => void;

function toggled<T>(values: readonly T[], value: T): T[] {
  return values.includes(value) ? values.filter((each) => each !== value) : [...values, value];
}

function Filters({ experiment, state, update }: { experiment: Details; state: OneState; update: Update }) {
  const agents = useMemo(() => {
    const known = experiment.agents.map(({ agent_id }) => agent_id);
    return [...new Set([...state.agent, ...known])].sort();
  }, [experiment.agents, state.agent]);
  const logsOf = (agent: string) => experiment.agents.find(({ agent_id }) => agent_id === agent)?.logs ?? 0;
  return (
    <div className="experiment-filters">
      <fieldset className="segmented" aria-label="Levels">
        {LEVELS.map((level) => (
          <Button
            key={level}
            kind="quiet"
            aria-pressed={state.level.includes(level)}
            onClick={() => update({ level: toggled(state.level, level) })}
          >
            <Level level={level} />
            {(experiment.by_level[level] ?? 0) > 0 && (
              <span className="muted">{shownCount(experiment.by_level[level] ?? 0)}</span>
            )}
          </Button>
        ))}
      </fieldset>
      {agents.length > 0 && (
        <fieldset className="segmented agents" aria-label="Agents">
          {agents.slice(0, AGENTS_MAX).map((agent) => (
            <Button
              key={agent}
              kind="quiet"
              aria-pressed={state.agent.includes(agent)}
              onClick={() => update({ agent: toggled(state.agent, agent) })}
            >
              {agent} <span className="muted">{shownCount(logsOf(agent))}</span>
            </Button>
          ))}
        </fieldset>
      )}
      <div className="experiment-times">
        <TimeField label="Start" value={state.from} placeholder="the beginning" onTime={(from) => update({ from })} />
        <TimeField label="End" value={state.to} placeholder="now" onTime={(to) => update({ to })} />
      </div>
    </div>
  );
}

/** A time as people write it; taken when the field is left, or by Enter. */
function TimeField({
  label,
  value,
  placeholder,
  onTime,
}: {
  label: string;
  value: string;
  placeholder: string;
  onTime: (text: string) => void;
}) {
  const zone = useZone();
  const shown = value.startsWith("-") ? value : shownMoment(value, zone);
  const [written, setWritten] = useState<string | null>(null);
  const [problem, setProblem] = useState("");
  const take = () => {
    if (written === null) return;
    const read = parseTime(written, Date.now(), zone);
    setProblem(read.ok ? "" : read.problem);
    if (!read.ok) return;
    setWritten(null);
    const text = read.text === "now" ? "" : read.text;
    if (text !== value) onTime(text);
  };
  return (
    <label className="time-field">
      <span className="muted">{label}</span>
      <input
        className="input"
        value={written ?? shown}
        placeholder={placeholder}
        title={problem || "-15m, 17:30, yesterday 17:30, 2026-01-31 12:00"}
        aria-invalid={problem !== ""}
        onChange={(event) => setWritten(event.target.value)}
        onBlur={take}
        onKeyDown={(event) => {
          if (event.key === "Enter") take();
        }}
      />
      {problem !== "" && (
        <span className="field-problem" role="alert">
          {problem}
        </span>
      )}
    </label>
  );
}

/** The logs, newest first; what comes is there by itself, and whoever scrolled away is not moved. */
function Logs({ id, state, update }: { id: string; state: OneState; update: Update }) {
  const [explorer] = useState(() => new Explorer());
  const view = useSyncExternalStore(explorer.subscribe, explorer.current);
  const table = useRef<VirtualTableHandle>(null);
  const [activeId, setActiveId] = useState("");
  const zone = useZone();
  const { store } = explorer;
  const question = questionOf(id, state).toString();
  const isLive = state.to === "";
  useEffect(() => {
    explorer.ask(new URLSearchParams(question), isLive);
    return () => explorer.end();
  }, [explorer, question, isLive]);
  useEffect(() => {
    explorer.onShift = (rows) => table.current?.shift(rows);
  }, [explorer]);
  useEffect(() => {
    if (view.generation > 0) table.current?.scrollTo(0, "start");
  }, [view.generation]);
  const reach = useCallback((first: number, last: number) => explorer.reach(first, last), [explorer]);
  const toTop = useCallback((isAtTop: boolean) => explorer.setAtTop(isAtTop), [explorer]);

  if (view.phase === "failed" && view.problem !== null) {
    return <ErrorState problem={view.problem} onRetry={() => explorer.restart()} />;
  }
  if (view.phase === "loading" && view.generation === 0) return <Loading label="Asking for logs" />;

  const active = store.rows.findIndex((row) => row.id === activeId);
  const choose = (index: number) => {
    const row = store.at(index);
    if (row === undefined) return;
    setActiveId(row.id);
    table.current?.scrollTo(index);
    if (state.log !== "") update({ log: row.id }, { replace: true });
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const at = active < 0 ? -1 : active + store.base;
    const row = store.at(at);
    if (event.key === "j" || event.key === "ArrowDown") choose(at < 0 ? store.base : Math.min(at + 1, store.count - 1));
    else if (event.key === "k" || event.key === "ArrowUp") choose(Math.max(at - 1, store.base));
    else if (event.key === "g") choose(store.base);
    else if (event.key === "Enter" && row !== undefined) update({ log: row.id });
    else if (event.key === "Escape") update({ log: "" });
    else return;
    event.preventDefault();
  };
  const open = state.log === "" ? undefined : store.rows.find((row) => row.id === state.log);
  const isNarrowed = state.level.length + state.agent.length > 0 || state.from !== "" || state.to !== "";
  return (
    <section className="experiment-logs" aria-label="Logs" data-open={open !== undefined}>
      <div className="experiment-notes" role="status">
        {store.freshCount > 0 && (
          <Button
            kind="primary"
            onClick={() => {
              explorer.showFresh();
              table.current?.scrollTo(0, "start");
            }}
          >
            {shownCount(store.freshCount)} new
          </Button>
        )}
        {view.tail?.kind === "waiting" && (
          <span className="muted">Cut off: {view.tail.reason}. It goes on by itself.</span>
        )}
        {view.tail?.kind === "ended" && <span className="muted">Not live: {view.tail.problem.detail}</span>}
        {view.skipped > 0 && <span className="muted">{shownCount(view.skipped)} logs came too fast to be shown</span>}
        {view.olderProblem !== null && (
          <Button onClick={() => explorer.goOn()}>{view.olderProblem.detail} Try again</Button>
        )}
        {view.searchedTo !== null && (
          <Button onClick={() => explorer.goOn()}>Searched to {shownMoment(view.searchedTo, zone)}. Search on</Button>
        )}
      </div>
      {store.count === 0 ? (
        <Empty title={isNarrowed ? "Nothing found" : "No log yet"}>
          {isNarrowed
            ? "No log of this experiment matches these filters."
            : "Its logs are those with its id in metadata.experiment_id. They appear here as they come."}
        </Empty>
      ) : (
        <VirtualTable
          ref={table}
          className="experiment-table"
          label="Logs, newest first"
          count={store.count}
          active={active < 0 ? -1 : active + store.base}
          onRange={reach}
          onScroll={toTop}
          onKeyDown={onKeyDown}
          keyOf={(index) => store.at(index)?.id ?? index}
          rowProps={(index) => {
            const row = store.at(index);
            return row === undefined ? {} : { className: "experiment-row", "data-level": row.level, "data-id": row.id };
          }}
          onRowClick={(index) => {
            const row = store.at(index);
            if (row === undefined || window.getSelection()?.type === "Range") return;
            setActiveId(row.id);
            update({ log: row.id }, { replace: state.log !== "" });
          }}
          row={(index) => {
            const row = store.at(index);
            if (row === undefined) return <span role="gridcell">…</span>;
            const agent = row.metadata?.agent_id;
            return (
              <>
                <span role="gridcell" className="experiment-level">
                  <Level level={row.level} />
                </span>
                <span role="gridcell" className="mono">
                  <span className="experiment-day">{shownMoment(row.timestamp, zone).slice(0, -8)}</span>
                  {shownMoment(row.timestamp, zone).slice(-8)}
                  <span className="muted experiment-ms">.{row.timestamp.slice(20, 23)}</span>
                </span>
                <span role="gridcell" className="experiment-agent">
                  {typeof agent === "string" ? agent : ""}
                </span>
                <span role="gridcell" className="mono experiment-message">
                  {row.message.slice(0, 600)}
                </span>
              </>
            );
          }}
          head={
            <div className="experiment-row experiment-columns muted">
              <span>Level</span>
              <span>Timestamp</span>
              <span>Agent</span>
              <span>Message</span>
            </div>
          }
        />
      )}
      {open !== undefined && (
        <aside className="experiment-open" aria-label="Log">
          <div className="page-head">
            <Level level={open.level} /> <Time at={open.timestamp} />
            <span className="spread" />
            <Link
              className="button"
              href={`/?${new URLSearchParams({ from: "all", q: `metadata.experiment_id:"${id}"`, log: open.id })}`}
            >
              Open in Explore
            </Link>
            <Button kind="quiet" aria-label="Close the log" onClick={() => update({ log: "" })}>
              ✕
            </Button>
          </div>
          <pre className="mono">{open.message}</pre>
          <pre className="mono muted">{JSON.stringify(open.metadata, null, 2)}</pre>
        </aside>
      )}
    </section>
  );
}
