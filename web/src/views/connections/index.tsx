/** Connections: who was connected, what both ends wrote, and how it went. */
import { useCallback } from "react";
import { useSearch } from "../../router/router";
import { Button } from "../../shared/Button";
import { useBookmarksOf } from "../../shared/bookmarks";
import { Find } from "../../shared/Find";
import { More } from "../../shared/More";
import { Empty, ErrorState, Loading } from "../../shared/states";
import "./connections.css";
import { ConnectionCard } from "./parts/ConnectionCard";
import { StatisticsPanel } from "./parts/StatisticsPanel";
import { useConnections, useConnectionsOf } from "./queries";
import { CONNECTIONS } from "./state";

export default function ConnectionsView() {
  const [state, update] = useSearch(CONNECTIONS);
  const { data, error, refetch, hasNextPage, isFetchingNextPage, fetchNextPage } = useConnections(
    state.username,
    state.errors,
  );
  const bookmarks = useBookmarksOf("connection");
  const marked = useConnectionsOf([...bookmarks.ids], state.bookmarked);
  const onSide = useCallback((side: "server" | "client") => update({ side }, { replace: true }), [update]);
  const found = state.bookmarked ? marked : (data?.pages.flatMap((page) => page.connections) ?? []);
  const hasFilter = state.username !== "" || state.errors || state.bookmarked;
  return (
    <div className="page connections">
      <div className="page-head">
        <h1>Connections</h1>
        <Find
          label="Find by username"
          placeholder="part of a username"
          text={state.username}
          onText={(username) => update({ username, bookmarked: false }, { replace: true })}
        />
        <Button aria-pressed={state.errors} onClick={() => update({ errors: !state.errors, bookmarked: false })}>
          With errors
        </Button>
        {bookmarks.isThere && (
          <Button
            aria-pressed={state.bookmarked}
            onClick={() => update({ bookmarked: !state.bookmarked, username: "", errors: false })}
          >
            ★ Bookmarked
          </Button>
        )}
        <span className="spread" />
        <fieldset className="segmented" aria-label="Show">
          <Button kind="quiet" aria-pressed={state.show === "logs"} onClick={() => update({ show: "logs" })}>
            Logs and plots
          </Button>
          <Button kind="quiet" aria-pressed={state.show === "list"} onClick={() => update({ show: "list" })}>
            List only
          </Button>
        </fieldset>
      </div>
      {data === undefined ? (
        error !== null ? (
          <ErrorState problem={error} onRetry={() => void refetch()} />
        ) : (
          <Loading label="Asking for connections" />
        )
      ) : (
        <>
          {!hasFilter && found.length > 0 && <StatisticsPanel />}
          {found.length === 0 ? (
            hasFilter ? (
              <Empty
                title="No such connection"
                actions={
                  <Button onClick={() => update({ username: "", errors: false, bookmarked: false })}>Show all</Button>
                }
              >
                {state.username === "" ? "None matches." : "Of everything stored, no username has this in it."}
              </Empty>
            ) : (
              <Empty title="No connection yet">
                <code>logfeed import-connections DIRECTORY</code> sends the logs of both ends; services may send them by{" "}
                <code>PUT /api/v1/connections/ID</code>.
              </Empty>
            )
          ) : (
            <ul className="connections-list" aria-label="Connections">
              {found.map((connection) => (
                <ConnectionCard
                  key={connection.id}
                  connection={connection}
                  isWhole={state.show === "logs"}
                  side={state.side}
                  onSide={onSide}
                  isMarked={bookmarks.ids.has(connection.id)}
                  onMark={bookmarks.isThere ? bookmarks.toggle : undefined}
                />
              ))}
            </ul>
          )}
          {!state.bookmarked && hasNextPage && (
            <More isLoading={isFetchingNextPage} onMore={() => void fetchNextPage()} />
          )}
        </>
      )}
    </div>
  );
}
