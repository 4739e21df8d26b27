/** Explore: find logs, follow them, and see what is around them. The address holds the whole state (state.ts). */
import { useQuery } from "@tanstack/react-query";
import {
  type KeyboardEvent,
  lazy,
  Suspense,
  useCallback,
  useEffect,
  useMemo,
  useRef,
  useState,
  useSyncExternalStore,
} from "react";
import { answerOf, client } from "../../api/client";
import { session } from "../../api/session";
import { useZone } from "../../app/theme";
import { Explorer, type View } from "../../logs/explorer";
import type { Row } from "../../logs/row";
import { shownTime } from "../../logs/times";
import { useSearch } from "../../router/router";
import { Button } from "../../shared/Button";
import { Dialog } from "../../shared/Dialog";
import { LEVELS, Level } from "../../shared/Level";
import { Empty, ErrorState, Loading } from "../../shared/states";
import { toast, toastProblem } from "../../shared/toast";
import type { VirtualTableHandle } from "../../shared/VirtualTable";
import { fieldsOf } from "./engine/complete";
import { Highlighter, type RegexRunner } from "./engine/highlight";
import { marksOf, withTerm } from "./engine/query";
import "./explore.css";
import { Choice } from "./parts/Choice";
import { Details } from "./parts/Details";
import { Facets } from "./parts/Facets";
import { Help } from "./parts/Help";
import { LogTable } from "./parts/LogTable";
import { MoreMenu } from "./parts/MoreMenu";
import { Patterns } from "./parts/Patterns";
import { useBookmarks } from "./parts/personal";
import { SearchBox } from "./parts/SearchBox";
import { Story } from "./parts/Story";
import { TimeRange } from "./parts/TimeRange";
import { ALL_TIME, EXPLORE, isOpen, questionOf } from "./state";

const Histogram = lazy(() => import("./parts/Histogram"));
const AROUND_ROWS = 20;
const COLUMNS_MAX = 6;
const WIDER: [string, string][] = [
  ["-24h", "Last 24 hours"],
  ["-7d", "Last 7 days"],
  [ALL_TIME, "All time"],
];

const regexWorker = (): RegexRunner =>
  new Worker(new URL("./engine/highlight.worker.ts", import.meta.url), { type: "module", name: "highlight" });

export default function ExploreView() {
  const [state, update] = useSearch(EXPLORE);
  const [explorer] = useState(() => new Explorer());
  const [highlighter] = useState(() => new Highlighter(regexWorker));
  const view = useSyncExternalStore(explorer.subscribe, explorer.current);
  const table = useRef<VirtualTableHandle>(null);
  const search = useRef<HTMLInputElement>(null);
  const [active, setActive] = useState<Row | null>(null);
  const [surrounded, setSurrounded] = useState("");
  const [isTimeOpen, setIsTimeOpen] = useState(false);
  const [dialog, setDialog] = useState<"" | "help" | "facets">("");
  const bookmarks = useBookmarks();
  const { store } = explorer;

  const question = questionOf(state).toString();
  // Rows first: to count takes both processors of a small server.
  const mayCount = view.question === question && view.phase !== "loading";
  const isLive = state.live && isOpen(state) && state.at === "";
  const wantsLive = useRef(isLive);
  wantsLive.current = isLive;
  useEffect(() => {
    explorer.ask(new URLSearchParams(question), wantsLive.current, { aroundId: state.at });
    return () => explorer.end();
  }, [explorer, question, state.at]);
  useEffect(() => explorer.setLive(isLive), [explorer, isLive]);
  useEffect(() => highlighter.setMarks(marksOf(state.q)), [highlighter, state.q]);
  useEffect(() => () => highlighter.end(), [highlighter]);

  // Other rows: the reader begins at their edge.
  useEffect(() => {
    if (view.generation === 0) return;
    const { middle } = explorer;
    setActive(middle ?? null);
    setSurrounded("");
    if (middle !== undefined) {
      table.current?.scrollTo(explorer.store.indexOf(middle), "center");
      return;
    }
    const index = explorer.beganAtOldest ? explorer.store.count - 1 : 0;
    if (index >= 0) table.current?.scrollTo(index, "end");
  }, [explorer, view.generation]);
  useEffect(() => {
    explorer.onShift = (rows) => table.current?.shift(rows);
  }, [explorer]);

  const services = useQuery({
    queryKey: ["services"],
    queryFn: ({ signal }) => answerOf(client.GET("/api/v1/services", { signal })),
    staleTime: 60_000,
  });
  const serviceNames = useMemo(() => services.data?.services.map((each) => each.service_name) ?? [], [services.data]);
  // Of the first rows: what comes later seldom has other fields.
  // biome-ignore lint/correctness/useExhaustiveDependencies: the rows are others with each generation
  const fields = useMemo(() => [...fieldsOf(explorer.store.rows).keys()].sort(), [explorer, view.generation]);
  const sources = useCallback(
    () => ({ services: serviceNames, fields: fieldsOf(explorer.store.rows) }),
    [explorer, serviceNames],
  );

  const onTerm = useCallback(
    (term: string, isExcluded: boolean) => update({ q: withTerm(state.q, term, isExcluded), mode: "filter" }),
    [update, state.q],
  );
  const toggle = <T extends string>(values: readonly T[], value: T): T[] =>
    values.includes(value) ? values.filter((each) => each !== value) : [...values, value];
  const facetActions = {
    onService: (name: string) => update({ service: toggle(state.service, name) }),
    onLevel: (level: (typeof LEVELS)[number]) => update({ level: toggle(state.level, level) }),
    onTerm,
    onFields: (facet: string[]) => update({ facet }),
  };

  const open = (row: Row) => update({ log: row.id, panel: "" }, { replace: state.log !== "" });
  const close = () => update({ log: "", panel: "" });

  const surround = async (row: Row) => {
    if (surrounded === row.id) {
      setSurrounded("");
      table.current?.shift(explorer.surround(row, []));
      return;
    }
    try {
      const { before, after } = await answerOf(
        client.GET("/api/v1/logs/{log_id}/context", {
          params: { path: { log_id: row.id }, query: { before: AROUND_ROWS, after: AROUND_ROWS } },
        }),
      );
      setSurrounded(row.id);
      table.current?.shift(explorer.surround(row, [...before, ...after]));
    } catch (error) {
      toastProblem(error);
    }
  };

  const move = (rows: number) => {
    const at = active === null ? -1 : store.indexOf(active);
    const index = at < 0 ? store.base : Math.min(Math.max(at + rows, store.base), store.count - 1);
    choose(index);
  };
  const choose = (index: number) => {
    const row = store.at(index);
    if (row === undefined) return;
    setActive(row);
    table.current?.scrollTo(index);
    if (state.log !== "") open(row);
  };
  const isSeeking = useRef(false);
  const find = async (levels: readonly string[], name: string) => {
    const rows = store.rows;
    const from = active === null ? 0 : store.indexOf(active) - store.base + 1;
    for (let index = Math.max(from, 0); index < rows.length; index++) {
      if (levels.includes(rows[index]?.level ?? "")) {
        choose(store.base + index);
        return;
      }
    }
    if (store.older.kind === "end") toast(`No further ${name}`);
    else if (!isSeeking.current) await seek(levels, name);
  };
  /** Beyond the rows that are loaded. */
  const seek = async (levels: readonly string[], name: string) => {
    isSeeking.current = true;
    toast(`Looking for the next ${name} …`);
    try {
      const row = await explorer.findOlder(levels);
      if (row === null) toast(`No further ${name}`);
      else update({ at: row.id, live: false, ...(state.log === "" ? {} : { log: row.id }) });
    } catch (error) {
      if (!(error instanceof DOMException && error.name === "AbortError")) toastProblem(error);
    } finally {
      isSeeking.current = false;
    }
  };
  const toNewest = () => {
    if (state.at !== "") update({ at: "" });
    else if (store.isAtHead && !explorer.beganAtOldest) {
      if (store.freshCount > 0) explorer.showFresh();
      table.current?.scrollTo(0, "start");
    } else explorer.restart();
  };

  const keys: Record<string, () => void> = {
    "/": () => search.current?.focus(),
    j: () => move(1),
    k: () => move(-1),
    ArrowDown: () => move(1),
    ArrowUp: () => move(-1),
    g: toNewest,
    G: () => {
      if (store.older.kind === "end") table.current?.scrollTo(store.count - 1, "end");
      else explorer.restart(true);
    },
    Enter: () => active !== null && open(active),
    x: () => active !== null && void surround(active),
    e: () => void find(["ERROR", "FATAL"], "error"),
    w: () => void find(["WARN"], "warning"),
    m: () => active !== null && bookmarks.toggle(active.id),
    " ": () => isLive && explorer.setPaused(!explorer.isPaused),
    t: () => setIsTimeOpen(true),
    "?": () => setDialog("help"),
    Escape: () => (state.log !== "" || state.panel !== "") && close(),
  };
  const pressed = useRef(keys);
  pressed.current = keys;
  useEffect(() => {
    const down = (event: globalThis.KeyboardEvent) => {
      const target = event.target as HTMLElement;
      const isElsewhere = target.closest("input, textarea, select, dialog, [role=menu], [role=dialog]") !== null;
      const isPressing = (event.key === "Enter" || event.key === " ") && target.closest("button, a") !== null;
      if (isElsewhere || isPressing || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
      const action = pressed.current[event.key];
      if (action === undefined) return;
      event.preventDefault();
      action();
    };
    document.addEventListener("keydown", down);
    return () => document.removeEventListener("keydown", down);
  }, []);
  // Arrow keys move the chosen row; the browser would scroll instead.
  const onTableKey = (event: KeyboardEvent) => {
    if (["ArrowDown", "ArrowUp", " "].includes(event.key)) event.preventDefault();
    if (event.isDefaultPrevented()) keys[event.key]?.();
  };

  const queryProblem = view.problem?.fields.find(({ field }) => field === "query") ?? null;
  if (state.story !== "") {
    return (
      <div className="explore explore-story">
        <div className="explore-main">
          <Story correlationId={state.story} openId={state.log} onOpen={open} onClose={() => update({ story: "" })} />
          {state.log !== "" && (
            <OpenLog
              id={state.log}
              explorer={explorer}
              highlighter={highlighter}
              actions={{
                onTerm: (term, isExcluded) => update({ q: withTerm(state.q, term, isExcluded), story: "" }),
                close,
                surround: (row) => {
                  update({ story: "" });
                  void surround(row);
                },
                isSurrounded: false,
                onStory: (story) => update({ story }),
                bookmarks,
              }}
            />
          )}
        </div>
      </div>
    );
  }
  return (
    <div className="explore">
      <div className="explore-bar">
        <SearchBox
          ref={search}
          query={state.q}
          onQuery={(q, isMore) => update({ q }, { replace: isMore })}
          problem={queryProblem}
          sources={sources}
        />
        <div className="mode" role="group" aria-label="What the search does">
          <Button
            aria-pressed={state.mode === "filter"}
            onClick={() => update({ mode: "filter" })}
            title="Show only lines that match"
          >
            Filter
          </Button>
          <Button
            aria-pressed={state.mode === "highlight"}
            onClick={() => update({ mode: "highlight" })}
            title="Show all lines, and mark what matches"
          >
            Highlight
          </Button>
        </div>
        <Choice
          label="Services"
          all={serviceNames.length === 1 ? (serviceNames[0] as string) : "All services"}
          options={serviceNames}
          chosen={state.service}
          onChange={(service) => update({ service })}
        />
        <Choice
          label="Levels"
          all="All levels"
          options={LEVELS}
          chosen={state.level}
          onChange={(level) => update({ level })}
          draw={(level) => <Level level={level} />}
        />
        <TimeRange
          from={state.from}
          to={state.to}
          onRange={(from, to) => update({ from, to, at: "", live: to === "" && state.live })}
          isOpen={isTimeOpen}
          onOpen={setIsTimeOpen}
        />
        {session.may("tail") && (
          <Button
            aria-pressed={isLive}
            disabled={!isOpen(state)}
            onClick={() => {
              explorer.setPaused(false);
              update({ live: !isLive, at: "" });
            }}
            title="Show logs as they come"
          >
            <span className="live-dot" data-on={isLive} aria-hidden="true" /> Live
          </Button>
        )}
        <div className="columns-choice">
          <Choice
            label="Columns"
            all="Columns"
            options={fields}
            chosen={state.column}
            chosenMax={COLUMNS_MAX}
            onChange={(column) => update({ column })}
          />
        </div>
        <Button className="facets-button" onClick={() => setDialog("facets")}>
          Facets
        </Button>
        <Button
          aria-pressed={state.panel === "patterns"}
          onClick={() => update({ panel: state.panel === "" ? "patterns" : "", log: "" })}
        >
          Patterns
        </Button>
        <MoreMenu
          state={state}
          onHelp={() => setDialog("help")}
          onOpenLog={(id) => update({ log: id, at: id, from: ALL_TIME, to: "", live: false, panel: "" })}
        />
      </div>
      <Suspense fallback={<div className="histogram" />}>
        <Histogram state={state} mayAsk={mayCount} onZoom={(from, to) => update({ from, to, at: "", live: false })} />
      </Suspense>
      <div className="explore-main">
        <div className="facets-side">
          <Facets state={state} mayAsk={mayCount} services={serviceNames} fields={fields} actions={facetActions} />
        </div>
        <div className="explore-table" data-loading={view.phase === "loading" && store.count > 0}>
          {content()}
          {store.freshCount > 0 && view.phase === "ready" && (
            <Button kind="primary" className="fresh" onClick={toNewest}>
              ↑ {store.freshCount.toLocaleString("en")} new
            </Button>
          )}
          <StatusLine view={view} explorer={explorer} isLive={isLive} highlighter={highlighter} />
        </div>
        {state.panel === "patterns" ? (
          <Patterns
            state={state}
            onClose={close}
            onPattern={(id) => update({ q: `pattern:${id}`, mode: "filter", panel: "patterns" })}
          />
        ) : (
          state.log !== "" && (
            <OpenLog
              id={state.log}
              explorer={explorer}
              highlighter={highlighter}
              actions={{
                onTerm,
                close,
                surround: (row) => void surround(row),
                isSurrounded: surrounded === state.log,
                onStory: (story) => update({ story }),
                bookmarks,
              }}
            />
          )
        )}
      </div>
      {dialog === "help" && <Help onClose={() => setDialog("")} />}
      {dialog === "facets" && (
        <Dialog title="Facets" onClose={() => setDialog("")}>
          <Facets state={state} mayAsk={mayCount} services={serviceNames} fields={fields} actions={facetActions} />
        </Dialog>
      )}
    </div>
  );

  function content() {
    if (view.phase === "failed" && view.problem !== null && queryProblem === null) {
      return <ErrorState problem={view.problem} onRetry={() => explorer.restart()} />;
    }
    if (store.count === 0) {
      if (view.phase === "loading" || view.isLoadingOlder) return <Loading label="Searching" />;
      if (queryProblem !== null) return <Empty title="The search is not complete">See the note below it.</Empty>;
      return nothing();
    }
    return (
      <LogTable
        ref={table}
        explorer={explorer}
        highlighter={highlighter}
        active={active}
        openId={state.log}
        columns={state.column}
        onActive={setActive}
        onOpen={open}
        onKeyDown={onTableKey}
      />
    );
  }

  function nothing() {
    if (services.data?.services.length === 0) {
      return (
        <Empty
          title="No logs were received yet"
          actions={
            <a className="button" href="/docs">
              How to send some
            </a>
          }
        >
          {isLive ? "They appear here as they come." : "Or none of a service that you may read."}
        </Empty>
      );
    }
    const isNarrowed = state.q !== "" || state.service.length + state.level.length > 0;
    return (
      <Empty
        title="Nothing found"
        actions={
          <>
            {(state.from !== ALL_TIME || state.to !== "") &&
              WIDER.filter(([from]) => from !== state.from || state.to !== "").map(([from, name]) => (
                <Button key={from} onClick={() => update({ from, to: "" })}>
                  {name}
                </Button>
              ))}
            {isNarrowed && <Button onClick={() => update({ q: "", service: [], level: [] })}>Without filters</Button>}
          </>
        }
      >
        {isNarrowed ? "No log of this time matches." : "There is no log of this time."}
      </Empty>
    );
  }
}

interface LogActions {
  onTerm: (term: string, isExcluded: boolean) => void;
  close: () => void;
  surround: (row: Row) => void;
  isSurrounded: boolean;
  onStory: (correlationId: string) => void;
  bookmarks: ReturnType<typeof useBookmarks>;
}

/** The details of the log with an id: of a row where it is one, else asked for. */
function OpenLog({
  id,
  explorer,
  highlighter,
  actions,
}: {
  id: string;
  explorer: Explorer;
  highlighter: Highlighter;
  actions: LogActions;
}) {
  useSyncExternalStore(highlighter.subscribe, highlighter.current);
  const shown = explorer.store.rows.find((row) => row.id === id);
  const asked = useQuery({
    queryKey: ["log", id],
    queryFn: ({ signal }) =>
      answerOf(client.GET("/api/v1/logs/{log_id}", { params: { path: { log_id: id } }, signal })).then(
        ({ log }) => log,
      ),
    enabled: shown === undefined,
    staleTime: Number.POSITIVE_INFINITY,
  });
  const log = shown ?? asked.data;
  if (log === undefined) {
    return (
      <section className="details" aria-label="Log">
        <div className="details-head">
          <Button kind="quiet" className="details-close" aria-label="Close details" onClick={actions.close}>
            ✕
          </Button>
        </div>
        {asked.error === null ? <Loading /> : <ErrorState problem={asked.error} onRetry={() => void asked.refetch()} />}
      </section>
    );
  }
  const { bookmarks } = actions;
  const noteOf = () => {
    const text = bookmarks.noteOf(id);
    return text === undefined ? undefined : { text, onChange: (note: string) => bookmarks.annotate(id, note) };
  };
  return (
    <Details
      log={log}
      spans={highlighter.spansOf(log)}
      onTerm={actions.onTerm}
      onClose={actions.close}
      onContext={() => actions.surround(log)}
      isSurrounded={actions.isSurrounded}
      onStory={actions.onStory}
      note={noteOf()}
      bookmark={
        bookmarks.bookmarks !== null && (
          <Button aria-pressed={bookmarks.has(id)} onClick={() => bookmarks.toggle(id)}>
            Bookmark
          </Button>
        )
      }
    />
  );
}

/** How far the rows go, and how the tail does. */
function StatusLine({
  view,
  explorer,
  isLive,
  highlighter,
}: {
  view: View;
  explorer: Explorer;
  isLive: boolean;
  highlighter: Highlighter;
}) {
  useSyncExternalStore(highlighter.subscribe, highlighter.current);
  const zone = useZone();
  const { store } = explorer;
  const parts: React.ReactNode[] = [];
  if (store.count > 0)
    parts.push(`${store.count.toLocaleString("en")} lines${store.older.kind === "end" ? "" : " so far"}`);
  if (view.isLoadingOlder) parts.push("loading …");
  if (view.olderProblem !== null || view.searchedTo !== null) {
    const text =
      view.olderProblem?.detail ??
      `nothing found back to ${shownTime(view.searchedTo ?? "", zone, new Date().getFullYear())}`;
    parts.push(
      <>
        {text}{" "}
        <Button kind="quiet" onClick={() => explorer.goOn()}>
          Go on
        </Button>
      </>,
    );
  }
  if (highlighter.isTooSlow) parts.push("the regular expression is too slow to be marked");
  if (isLive) parts.push(<TailLine key="tail" view={view} isPaused={explorer.isPaused} />);
  return (
    <div className="status-line" role="status">
      {parts.map((part, index) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: parts are their place
        <span key={index}>{part}</span>
      ))}
    </div>
  );
}

function TailLine({ view, isPaused }: { view: View; isPaused: boolean }) {
  const { tail } = view;
  const skipped = view.skipped === 0 ? "" : `, ${view.skipped.toLocaleString("en")} left out`;
  const gap = view.gap === null ? "" : ", some are only in a new search";
  if (tail === null || tail.kind === "connecting") return "connecting …";
  if (tail.kind === "waiting") return `live again shortly: ${tail.reason}`;
  if (tail.kind === "ended") return `not live: ${tail.problem.detail}`;
  return `${isPaused ? "paused (Space goes on)" : "live"}${skipped}${gap}`;
}
