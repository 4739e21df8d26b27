/** What Experiments asks of the API; changes come by themselves (`useChanges`). */
import { type InfiniteData, useInfiniteQuery, useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import { answerOf, client, type Schemas } from "../../api/client";
import { follow } from "../../api/events";
import type { Status } from "./state";

export type Experiment = Schemas["ExperimentModel"];
export type Details = Schemas["ExperimentDetails"];
type Page = Schemas["ExperimentList"];

const LIMIT = 50;
/** Counts are asked again while it runs. */
const COUNTS_MS = 5_000;

export function useExperiments(q: string, status: Status[]) {
  return useInfiniteQuery({
    queryKey: ["experiments", q, status],
    queryFn: ({ pageParam, signal }) => {
      const query = {
        limit: LIMIT,
        ...(q === "" ? {} : { q }),
        ...(status.length === 0 ? {} : { status }),
        ...(pageParam === "" ? {} : { cursor: pageParam }),
      };
      return answerOf(client.GET("/api/v1/experiments", { params: { query: query as never }, signal }));
    },
    initialPageParam: "",
    getNextPageParam: (page: Page) => page.next_cursor,
  });
}

export function useExperiment(id: string) {
  return useQuery({
    queryKey: ["experiment", id],
    queryFn: ({ signal }) =>
      answerOf(client.GET("/api/v1/experiments/{experiment_id}", { params: { path: { experiment_id: id } }, signal })),
    refetchInterval: ({ state }) => (isOver(state.data) ? false : COUNTS_MS),
  });
}

export function isOver(experiment: Experiment | undefined): boolean {
  return experiment !== undefined && experiment.ended_at !== null;
}

/** Puts every change into what is shown. Answers why it does not come by itself now; empty: it does. */
export function useChanges(): string {
  const queries = useQueryClient();
  const [problem, setProblem] = useState("");
  useEffect(() => {
    const again = () => {
      void queries.invalidateQueries({ queryKey: ["experiments"] });
      void queries.invalidateQueries({ queryKey: ["experiment"] });
    };
    let wasCut = false;
    return follow("/api/v1/experiments/events", {
      onOpen: () => {
        setProblem("");
        if (wasCut) again();
      },
      onProblem: ({ detail }) => {
        wasCut = true;
        setProblem(detail);
      },
      onEvent: ({ kind, data }) => {
        if (kind === "gap") again();
        if (kind !== "experiment") return;
        const { experiment } = JSON.parse(data) as { experiment: Experiment };
        queries.setQueryData<Details>(["experiment", experiment.id], (shown) => shown && { ...shown, ...experiment });
        let isThere = false;
        queries.setQueriesData<InfiniteData<Page>>({ queryKey: ["experiments"] }, (shown) => {
          if (shown === undefined) return shown;
          const pages = shown.pages.map((page) => {
            const experiments = page.experiments.map((each) => {
              if (each.id !== experiment.id) return each;
              isThere = true;
              return experiment;
            });
            return { ...page, experiments };
          });
          return { ...shown, pages };
        });
        // New ones have their place at the top; a filter may take others in or out.
        if (!isThere) void queries.invalidateQueries({ queryKey: ["experiments"] });
      },
    });
  }, [queries]);
  return problem;
}
