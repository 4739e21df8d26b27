import { Link, useSearch } from "../../../router/router";
import { Button } from "../../../shared/Button";
import { Find } from "../../../shared/Find";
import { More } from "../../../shared/More";
import { Empty, ErrorState, Loading } from "../../../shared/states";
import { Distance, Time } from "../../../shared/Time";
import { useExperiments } from "../queries";
import { LIST, STATUSES } from "../state";
import { Lasting } from "./Lasting";
import { StatusBadge } from "./StatusBadge";

export function ExperimentList({ notLive }: { notLive: string }) {
  const [state, update] = useSearch(LIST);
  const { data, error, refetch, hasNextPage, isFetchingNextPage, fetchNextPage } = useExperiments(
    state.q,
    state.status,
  );
  const experiments = data?.pages.flatMap((page) => page.experiments) ?? [];
  const hasFilter = state.q !== "" || state.status.length > 0;
  return (
    <div className="page">
      <div className="page-head">
        <h1>Experiments</h1>
        {notLive !== "" && <span className="muted">not live: {notLive}</span>}
      </div>
      <div className="row-actions">
        <Find
          label="Find an experiment"
          placeholder="part of id or name"
          text={state.q}
          onText={(q) => update({ q }, { replace: true })}
        />
        <fieldset className="segmented" aria-label="Status">
          {STATUSES.map((status) => {
            const isOn = state.status.includes(status);
            return (
              <Button
                key={status}
                kind="quiet"
                aria-pressed={isOn}
                onClick={() =>
                  update({ status: isOn ? state.status.filter((each) => each !== status) : [...state.status, status] })
                }
              >
                {status}
              </Button>
            );
          })}
        </fieldset>
      </div>
      {data === undefined ? (
        error !== null ? (
          <ErrorState problem={error} onRetry={() => void refetch()} />
        ) : (
          <Loading label="Asking for experiments" />
        )
      ) : experiments.length === 0 ? (
        hasFilter ? (
          <Empty
            title="No such experiment"
            actions={<Button onClick={() => update({ q: "", status: [] })}>Show all</Button>}
          >
            None has this in its id or name, and such a status.
          </Empty>
        ) : (
          <Empty
            title="No experiment yet"
            actions={
              <a className="button" href="/docs">
                API documentation
              </a>
            }
          >
            Whoever runs one says so by <code>PUT /api/v1/experiments/ID</code>; its agents send logs with{" "}
            <code>metadata.experiment_id</code>.
          </Empty>
        )
      ) : (
        <table className="values">
          <thead>
            <tr>
              <th>Status</th>
              <th>Experiment</th>
              <th>Service</th>
              <th>Started</th>
              <th>Lasted</th>
              <th>Changed</th>
            </tr>
          </thead>
          <tbody>
            {experiments.map((each) => (
              <tr key={each.id}>
                <td data-head="Status">
                  <StatusBadge status={each.status} />
                </td>
                <td data-head="Experiment">
                  <span>
                    <Link href={`/experiments/${encodeURIComponent(each.id)}`}>{each.name || each.id}</Link>
                    {each.name !== "" && <span className="muted"> {each.id}</span>}
                  </span>
                </td>
                <td data-head="Service">{each.service_name}</td>
                <td data-head="Started">{each.started_at === null ? "—" : <Time at={each.started_at} />}</td>
                <td data-head="Lasted">
                  <Lasting experiment={each} />
                </td>
                <td data-head="Changed">
                  <Distance at={each.updated_at} />
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      {hasNextPage && <More isLoading={isFetchingNextPage} onMore={() => void fetchNextPage()} />}
    </div>
  );
}
