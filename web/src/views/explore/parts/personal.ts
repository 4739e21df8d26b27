/** Bookmarks and saved views of whoever is logged in. null: the server keeps none. */
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { getIfThere, request } from "../../../api/client";
import { toast, toastProblem } from "../../../shared/toast";

export interface Bookmark {
  kind: string;
  target_id: string;
  note: string;
  created_at: string;
}

export interface SavedView {
  name: string;
  address: string;
  created_at: string;
  changed_at: string;
}

const JSON_BODY = { "Content-Type": "application/json" };

export function useBookmarks() {
  const queries = useQueryClient();
  const { data } = useQuery({
    queryKey: ["bookmarks"],
    queryFn: ({ signal }) =>
      getIfThere<{ bookmarks: Bookmark[] }>("/api/v1/bookmarks", new URLSearchParams({ kind: "log" }), signal),
  });
  const change = useMutation({
    mutationFn: async ({ id, isOn, note = "" }: { id: string; isOn: boolean; note?: string }) => {
      const path = `/api/v1/bookmarks/log/${encodeURIComponent(id)}`;
      if (isOn) await request(path, { method: "PUT", headers: JSON_BODY, body: JSON.stringify({ note }) });
      else await request(path, { method: "DELETE" });
    },
    onSuccess: (_, { isOn, note }) => {
      toast(note !== undefined ? "Note kept" : isOn ? "Bookmarked" : "Bookmark removed");
      return queries.invalidateQueries({ queryKey: ["bookmarks"] });
    },
    onError: toastProblem,
  });
  const bookmarks = data?.bookmarks ?? null;
  return {
    bookmarks,
    has: (id: string) => bookmarks?.some(({ target_id }) => target_id === id) ?? false,
    /** undefined: it is no bookmark. */
    noteOf: (id: string) => bookmarks?.find(({ target_id }) => target_id === id)?.note,
    annotate: (id: string, note: string) => change.mutate({ id, isOn: true, note }),
    toggle: (id: string) => {
      if (bookmarks === null) toast("This server keeps no bookmarks");
      else change.mutate({ id, isOn: !bookmarks.some(({ target_id }) => target_id === id) });
    },
  };
}

export function useSavedViews() {
  const queries = useQueryClient();
  const { data } = useQuery({
    queryKey: ["views"],
    queryFn: ({ signal }) => getIfThere<{ views: SavedView[] }>("/api/v1/views", new URLSearchParams(), signal),
  });
  const refreshed = () => queries.invalidateQueries({ queryKey: ["views"] });
  const save = useMutation({
    mutationFn: ({ name, address }: { name: string; address: string }) =>
      request(`/api/v1/views/${encodeURIComponent(name)}`, {
        method: "PUT",
        headers: JSON_BODY,
        body: JSON.stringify({ address }),
      }),
    onSuccess: () => {
      toast("View saved");
      return refreshed();
    },
    onError: toastProblem,
  });
  const remove = useMutation({
    mutationFn: (name: string) => request(`/api/v1/views/${encodeURIComponent(name)}`, { method: "DELETE" }),
    onSuccess: refreshed,
    onError: toastProblem,
  });
  return { views: data?.views ?? null, save, remove };
}
