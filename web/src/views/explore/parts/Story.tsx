/** The whole story of a correlation id: every service on one time line, oldest first. */
import { useInfiniteQuery } from "@tanstack/react-query";
import { useMemo } from "react";
import { answerOf, client, type Log } from "../../../api/client";
import { useZone } from "../../../app/theme";
import { shownOffset, shownTime } from "../../../logs/times";
import { Button } from "../../../shared/Button";
import { Level } from "../../../shared/Level";
import { Empty, ErrorState, Loading } from "../../../shared/states";
import { VirtualTable } from "../../../shared/VirtualTable";

const PAGE_LIMIT = 500;
const LANES_MAX = 8;

export function Story({
  correlationId,
  openId,
  onOpen,
  onClose,
}: {
  correlationId: string;
  openId: string;
  onOpen: (log: Log) => void;
  onClose: () => void;
}) {
  const zone = useZone();
  const pages = useInfiniteQuery({
    queryKey: ["story", correlationId],
    initialPageParam: "",
    queryFn: ({ pageParam, signal }) =>
      answerOf(
        client.GET("/api/v1/correlations/{correlation_id}/logs", {
          params: {
            path: { correlation_id: correlationId },
            query: { limit: PAGE_LIMIT, ...(pageParam === "" ? {} : { cursor: pageParam }) },
          },
          signal,
        }),
      ),
    getNextPageParam: (page) => page.next_cursor,
  });
  const logs = useMemo(() => pages.data?.pages.flatMap((page) => page.logs) ?? [], [pages.data]);
  const lanes = useMemo(() => [...new Set(logs.map((log) => log.service_name))].slice(0, LANES_MAX), [logs]);
  const isWithheld = pages.data?.pages.some((page) => page.withheld) ?? false;
  const first = logs[0];
  const last = logs.at(-1);

  if (pages.isPending) return <Loading label="Reading the story" />;
  if (pages.error !== null && logs.length === 0) {
    return <ErrorState problem={pages.error} onRetry={() => void pages.refetch()} />;
  }
  return (
    <section className="story" aria-label="Whole story">
      <header className="story-head">
        <Button onClick={onClose}>← Back to the search</Button>
        <h1 className="mono">{correlationId}</h1>
        {first !== undefined && last !== undefined && (
          <span className="muted">
            {logs.length.toLocaleString("en")}
            {pages.hasNextPage ? "+" : ""} lines of {lanes.length} services,{" "}
            {shownOffset(last.timestamp, first.timestamp).slice(1)} in all, from {shownTime(first.timestamp, zone, 0)}
          </span>
        )}
        {isWithheld && <span className="story-withheld">There is more, of services that you may not read</span>}
      </header>
      {first === undefined ? (
        <Empty title="There is no log with this correlation id">Or none of a service that you may read.</Empty>
      ) : (
        <VirtualTable
          className="logs"
          label="Story, oldest first"
          count={logs.length}
          keyOf={(index) => logs[index]?.id ?? index}
          onRange={(_, end) => {
            if (end >= logs.length - 50 && pages.hasNextPage && !pages.isFetchingNextPage) void pages.fetchNextPage();
          }}
          onRowClick={(index) => {
            const log = logs[index];
            if (log !== undefined) onOpen(log);
          }}
          rowProps={(index) => ({
            className: "log story-row",
            "data-level": logs[index]?.level,
            "data-open": logs[index]?.id === openId ? "" : undefined,
          })}
          row={(index) => {
            const log = logs[index];
            if (log === undefined) return null;
            const lane = lanes.indexOf(log.service_name);
            return (
              <>
                <span role="gridcell" className="story-offset number">
                  {shownOffset(log.timestamp, first.timestamp)}
                </span>
                <span role="gridcell" className="story-lane">
                  <span className="hidden-text">{log.service_name}</span>
                  <Lanes count={lanes.length} at={lane} />
                </span>
                <span role="gridcell" className="log-level">
                  <Level level={log.level} />
                </span>
                <span role="gridcell" className="log-service" title={log.service_name}>
                  {log.service_name}
                </span>
                <span role="gridcell" className="log-message">
                  {log.message.slice(0, 600)}
                </span>
              </>
            );
          }}
        />
      )}
    </section>
  );
}

/** A line for each service, a dot on the one that spoke. */
function Lanes({ count, at }: { count: number; at: number }) {
  return (
    <svg width={count * 12} height={22} aria-hidden="true">
      {Array.from({ length: count }, (_, lane) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: lanes are their place
        <line key={lane} x1={lane * 12 + 6} x2={lane * 12 + 6} y1={0} y2={22} stroke="var(--line)" />
      ))}
      {at >= 0 && <circle cx={at * 12 + 6} cy={11} r={4} fill="var(--accent)" />}
    </svg>
  );
}
