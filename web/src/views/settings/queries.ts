/** What Settings asks of the API, and changes by it. */
import { useInfiniteQuery, useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { answerOf, client, type Schemas } from "../../api/client";
import { toast } from "../../shared/toast";
import type { Permissions } from "./engine/permissions";
import type { Rate } from "./engine/rates";

const LIMIT = 50;

export type Key = Schemas["KeyModel"];
export type User = Schemas["UserModel"];

export function useKeys(find: string, all: boolean) {
  return useInfiniteQuery({
    queryKey: ["accounts", "keys", find, all],
    queryFn: ({ pageParam, signal }) => {
      const query = {
        limit: LIMIT,
        all,
        ...(find === "" ? {} : { name: find }),
        ...(pageParam === "" ? {} : { cursor: pageParam }),
      };
      return answerOf(client.GET("/api/v1/keys", { params: { query: query as never }, signal }));
    },
    initialPageParam: "",
    getNextPageParam: (page: Schemas["KeyList"]) => page.next_cursor,
  });
}

export function useUsers(find: string) {
  return useInfiniteQuery({
    queryKey: ["accounts", "users", find],
    queryFn: ({ pageParam, signal }) => {
      const query = {
        limit: LIMIT,
        ...(find === "" ? {} : { name: find }),
        ...(pageParam === "" ? {} : { cursor: pageParam }),
      };
      return answerOf(client.GET("/api/v1/users", { params: { query: query as never }, signal }));
    },
    initialPageParam: "",
    getNextPageParam: (page: Schemas["UserList"]) => page.next_cursor,
  });
}

/** Names to choose from; none where they cannot be had. */
export function useServiceNames(): string[] {
  const { data } = useQuery({
    queryKey: ["services", "names"],
    queryFn: ({ signal }) => answerOf(client.GET("/api/v1/services", { signal })),
    staleTime: 60_000,
    retry: false,
  });
  return data?.services.map((each) => each.service_name) ?? [];
}

/** A change; the lists are asked anew after it. done: what is said then. What it answers is not kept: it may be a secret. */
export function useChange<Asked, Answer>(change: (asked: Asked) => Promise<Answer>, done?: (asked: Asked) => string) {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: change,
    gcTime: 0,
    onSuccess: (_, asked) => {
      if (done !== undefined) toast(done(asked));
      return queries.invalidateQueries({ queryKey: ["accounts"] });
    },
  });
}

export interface KeyWanted {
  name: string;
  permissions: Permissions;
  expires_at: string | null;
  networks: string[];
  logs_per_s: Rate;
  bytes_per_s: Rate;
  burst_s: number;
}

export function makeKey(body: KeyWanted) {
  return answerOf(client.POST("/api/v1/keys", { body }));
}

export function revokeKey({ prefix }: Key) {
  return client.DELETE("/api/v1/keys/{prefix}", { params: { path: { prefix } } });
}

export function makeUser(body: { name: string; permissions: Permissions; password: string }) {
  return answerOf(client.POST("/api/v1/users", { body }));
}

export function changeUser({ name, ...body }: { name: string; permissions?: Permissions; disabled?: boolean }) {
  return answerOf(client.PATCH("/api/v1/users/{name}", { params: { path: { name } }, body }));
}

export function setPassword({ name, ...body }: { name: string; password: string; current_password?: string }) {
  return client.POST("/api/v1/users/{name}/password", { params: { path: { name } }, body });
}
