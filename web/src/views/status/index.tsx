/** Status: what comes in and what becomes of it, services, topics, how far the pipeline is, where rows are. */
import { keepPreviousData, type UseQueryResult, useQuery } from "@tanstack/react-query";
import { lazy, type ReactNode, Suspense, useMemo } from "react";
import { answerOf, client, type Schemas } from "../../api/client";
import { session } from "../../api/session";
import { useSearch } from "../../router/router";
import { Badge } from "../../shared/Badge";
import { Button } from "../../shared/Button";
import { ErrorState, Loading, NoPermission } from "../../shared/states";
import { Tabs } from "../../shared/Tabs";
import { byMinute, byService, reasons } from "./engine/ledger";
import { LedgerTables } from "./parts/LedgerTables";
import { Pipeline } from "./parts/Pipeline";
import { Services } from "./parts/Services";
import { Tiers } from "./parts/Tiers";
import { Topics } from "./parts/Topics";
import { STATUS, type StatusState, type UpdateStatus } from "./state";
import "./status.css";

const Throughput = lazy(() => import("./parts/Throughput"));
const EVERY_MS = 10_000;
const RANGES: [StatusState["from"], string, number][] = [
  ["-15m", "15 minutes", 900],
  ["-1h", "An hour", 3_600],
  ["-6h", "6 hours", 21_600],
  ["-1d", "A day", 86_400],
];

export default function StatusView() {
  const [state, update] = useSearch(STATUS);
  return (
    <div className="page">
      <div className="page-head">
        <h1>Status</h1>
        <Readiness />
      </div>
      <Tabs
        label="Parts of status"
        current={state.tab}
        onTab={(tab) => update({ tab, find: "" })}
        tabs={[
          { id: "throughput", name: "Throughput" },
          { id: "services", name: "Services" },
          { id: "topics", name: "Topics" },
          { id: "pipeline", name: "Pipeline" },
          { id: "tiers", name: "Tiers" },
        ]}
      />
      {state.tab === "throughput" && <LedgerPart state={state} update={update} />}
      {state.tab === "services" && <ServicesPart state={state} update={update} />}
      {state.tab === "topics" && <TopicsPart />}
      {state.tab === "pipeline" && <StatusPart>{(found) => <Pipeline status={found} />}</StatusPart>}
      {state.tab === "tiers" && <StatusPart>{(found) => <Tiers status={found} />}</StatusPart>}
    </div>
  );
}

interface Ready {
  ready: boolean;
  problems: string[];
}

/** Of the process that answers this page: what it cannot do now. */
function Readiness() {
  const { data, error } = useQuery({
    queryKey: ["readyz"],
    // 503 is an answer here, and nobody needs to be logged in.
    queryFn: async ({ signal }) => (await (await fetch("/readyz", { signal })).json()) as Ready,
    refetchInterval: EVERY_MS,
    retry: false,
  });
  if (error !== null) return <Badge tone="bad">the server does not answer</Badge>;
  if (data === undefined) return null;
  if (data.ready) return <Badge tone="good">ready</Badge>;
  return (
    <span role="status">
      <Badge tone="bad">not ready</Badge> {data.problems.join("; ")}
    </span>
  );
}

/** An answer, or why there is none. */
function Found<T>({
  found,
  permission,
  children,
}: {
  found: UseQueryResult<T>;
  permission: "read" | "tail" | "admin";
  children: (data: T) => ReactNode;
}) {
  if (found.data !== undefined) return children(found.data);
  if (found.error !== null) {
    return <ErrorState problem={found.error} permission={permission} onRetry={() => void found.refetch()} />;
  }
  return <Loading label="Asking how it stands" />;
}

function LedgerPart({ state, update }: { state: StatusState; update: UpdateStatus }) {
  const { from, service } = state;
  const found = useQuery({
    queryKey: ["ledger", from, service],
    queryFn: async ({ signal }) => {
      const query = { start_time: from, ...(service === "" ? {} : { service_name: [service] }) };
      const answer = await answerOf(client.GET("/api/v1/ledger", { params: { query: query as never }, signal }));
      return { answer, askedMs: Date.now() };
    },
    refetchInterval: EVERY_MS,
    placeholderData: keepPreviousData,
  });
  return (
    <>
      <div className="row-actions">
        <fieldset className="segmented" aria-label="Time">
          {RANGES.map(([id, name]) => (
            <Button key={id} kind="quiet" aria-pressed={from === id} onClick={() => update({ from: id })}>
              {name}
            </Button>
          ))}
        </fieldset>
        {service !== "" && (
          <Button aria-label={`Not only ${service}`} onClick={() => update({ service: "" })}>
            {service} ✕
          </Button>
        )}
      </div>
      <Found found={found} permission="read">
        {({ answer, askedMs }) => <Ledger answer={answer} askedMs={askedMs} state={state} update={update} />}
      </Found>
    </>
  );
}

function Ledger({
  answer,
  askedMs,
  state,
  update,
}: {
  answer: Schemas["LedgerAnswer"];
  askedMs: number;
  state: StatusState;
  update: UpdateStatus;
}) {
  const spanS = RANGES.find(([id]) => id === state.from)?.[2] ?? 3_600;
  const minutes = useMemo(
    () => byMinute(answer.rows, askedMs / 1_000 - spanS, askedMs / 1_000),
    [answer.rows, askedMs, spanS],
  );
  const services = useMemo(() => byService(answer.rows), [answer.rows]);
  return (
    <>
      <section className="card" aria-label="Logs a minute">
        <Suspense fallback={<div className="throughput-place" />}>
          <Throughput minutes={minutes} />
        </Suspense>
      </section>
      <LedgerTables answer={answer} services={services} reasons={reasons(answer.totals)} update={update} />
    </>
  );
}

function ServicesPart({ state, update }: { state: StatusState; update: UpdateStatus }) {
  const found = useQuery({
    queryKey: ["services"],
    queryFn: ({ signal }) => answerOf(client.GET("/api/v1/services", { signal })),
    refetchInterval: EVERY_MS,
  });
  return (
    <Found found={found} permission="read">
      {({ services }) => <Services services={services} state={state} update={update} />}
    </Found>
  );
}

function TopicsPart() {
  const found = useQuery({
    queryKey: ["topics"],
    queryFn: ({ signal }) => answerOf(client.GET("/api/v1/topics", { signal })),
    refetchInterval: EVERY_MS,
  });
  return (
    <Found found={found} permission="tail">
      {({ topics }) => <Topics topics={topics} />}
    </Found>
  );
}

function StatusPart({ children }: { children: (status: Schemas["StatusAnswer"]) => ReactNode }) {
  const mayAsk = session.may("admin");
  const found = useQuery({
    queryKey: ["status"],
    queryFn: ({ signal }) => answerOf(client.GET("/api/v1/status", { signal })),
    refetchInterval: EVERY_MS,
    enabled: mayAsk,
  });
  if (!mayAsk) return <NoPermission permission="admin" />;
  return (
    <Found found={found} permission="admin">
      {children}
    </Found>
  );
}
