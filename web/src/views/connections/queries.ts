/** What Connections asks of the API. */
import { useInfiniteQuery, useQueries, useQuery } from "@tanstack/react-query";
import { answerOf, client, type Schemas } from "../../api/client";
import type { Point } from "./engine/figures";

export type Connection = Schemas["ConnectionModel"];
export type Side = "server" | "client";
export type SideFigures = Schemas["SideModel"];
/** The document's types know no tuples. */
export type Series = Omit<Schemas["SeriesAnswer"], "points"> & { points: Point[] };

const LIMIT = 20;
const POINTS_MAX = 500;
export const METRICS = [
  { metric: "latency", name: "Latency" },
  { metric: "decode_time", name: "Average decode time" },
  { metric: "encode_time", name: "Average encode time" },
  { metric: "encode_size", name: "Average encode size" },
] as const;

export function useConnections(username: string, hasErrors: boolean) {
  return useInfiniteQuery({
    queryKey: ["connections", username, hasErrors],
    queryFn: ({ pageParam, signal }) => {
      const query = {
        limit: LIMIT,
        ...(username === "" ? {} : { username }),
        ...(hasErrors ? { has_errors: true } : {}),
        ...(pageParam === "" ? {} : { cursor: pageParam }),
      };
      return answerOf(client.GET("/api/v1/connections", { params: { query: query as never }, signal }));
    },
    initialPageParam: "",
    getNextPageParam: (page: Schemas["ConnectionList"]) => page.next_cursor,
  });
}

/** Those with the given ids; what is gone or may not be read is left out. */
export function useConnectionsOf(ids: readonly string[], isWanted: boolean) {
  const found = useQueries({
    queries: (isWanted ? ids : []).map((id) => ({
      queryKey: ["connection", id],
      queryFn: ({ signal }: { signal: AbortSignal }) =>
        answerOf(
          client.GET("/api/v1/connections/{connection_id}", { params: { path: { connection_id: id } }, signal }),
        ),
    })),
  });
  return found.map(({ data }) => data).filter((each) => each !== undefined);
}

export function useStatistics() {
  return useQuery({
    queryKey: ["connections", "statistics"],
    queryFn: ({ signal }) => answerOf(client.GET("/api/v1/connections/statistics", { signal })),
    staleTime: 60_000,
  });
}

/** All four metrics; those that a connection has not are empty. */
export function useSeries(id: string) {
  return useQueries({
    queries: METRICS.map(({ metric }) => ({
      queryKey: ["series", id, metric],
      queryFn: ({ signal }: { signal: AbortSignal }) => {
        const params = { path: { connection_id: id }, query: { metric, max_points: POINTS_MAX } as never };
        return answerOf(
          client.GET("/api/v1/connections/{connection_id}/series", { params, signal }),
        ) as Promise<unknown> as Promise<Series>;
      },
      staleTime: 60_000,
    })),
  });
}
