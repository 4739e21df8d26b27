/** Bookmarks of whoever is logged in, of one kind. `isThere` is false where the server keeps none. */
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { getIfThere, request } from "../api/client";
import { toastProblem } from "./toast";

export function useBookmarksOf(kind: "connection" | "experiment") {
  const queries = useQueryClient();
  const key = ["bookmarks", kind];
  const { data } = useQuery({
    queryKey: key,
    queryFn: ({ signal }) =>
      getIfThere<{ bookmarks: { target_id: string }[] }>("/api/v1/bookmarks", new URLSearchParams({ kind }), signal),
  });
  const change = useMutation({
    mutationFn: ({ id, isOn }: { id: string; isOn: boolean }) => {
      const path = `/api/v1/bookmarks/${kind}/${encodeURIComponent(id)}`;
      const body = { headers: { "Content-Type": "application/json" }, body: JSON.stringify({ note: "" }) };
      return request(path, isOn ? { method: "PUT", ...body } : { method: "DELETE" });
    },
    onSuccess: () => queries.invalidateQueries({ queryKey: key }),
    onError: toastProblem,
  });
  const ids = new Set(data?.bookmarks.map(({ target_id }) => target_id) ?? []);
  return {
    isThere: data != null,
    ids,
    toggle: (id: string) => change.mutate({ id, isOn: !ids.has(id) }),
  };
}
