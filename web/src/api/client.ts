/**
 * Asking the API. Every answer that is not ok is an ApiProblem; types come from schemas/openapi.json (`make openapi`).
 *
 *     const page = await answerOf(client.GET("/api/v1/logs", { params: { query: { limit: 200 } }, signal }));
 */
import { QueryClient } from "@tanstack/react-query";
import createClient from "openapi-fetch";
import { asProblem, problemOf } from "./problem";
import type { components, paths } from "./schema";
import { session } from "./session";

export type Schemas = components["schemas"];
export type Log = Schemas["LogModel"];

const TRIES = 3;

async function send(request: Request): Promise<Response> {
  let response: Response;
  try {
    response = await session.fetch(request);
  } catch (error) {
    if (request.signal.aborted) throw error;
    throw asProblem(error);
  }
  if (!response.ok) throw await problemOf(response);
  return response;
}

export const client = createClient<paths>({ baseUrl: globalThis.location?.origin ?? "", fetch: send });

/** The body of an answer. Raises ApiProblem, or what an abort raises. */
export async function answerOf<T>(call: Promise<{ data?: T }>): Promise<T> {
  return (await call).data as T;
}

/** GET with parameters of any names (`metadata.KEY`), or of a route that the types do not have. */
export async function getJson<T>(path: string, query: URLSearchParams, signal?: AbortSignal): Promise<T> {
  const url = new URL(path, globalThis.location.href);
  url.search = query.toString();
  const response = await send(new Request(url, { signal: signal ?? null }));
  return (await response.json()) as T;
}

/** As getJson; null where the server has no such route. */
export async function getIfThere<T>(path: string, query: URLSearchParams, signal?: AbortSignal): Promise<T | null> {
  try {
    return await getJson<T>(path, query, signal);
  } catch (error) {
    if (asProblem(error).slug === "no-such-path") return null;
    throw error;
  }
}

/** A request of any kind; raises ApiProblem. */
export function request(path: string, init: RequestInit = {}): Promise<Response> {
  return send(new Request(new URL(path, globalThis.location.href), init));
}

/** Repeats only what may work later, after the time that the server asks for. */
export function makeQueryClient(): QueryClient {
  return new QueryClient({
    defaultOptions: {
      queries: {
        staleTime: 10_000,
        refetchOnWindowFocus: false,
        retry: (count, error) => count < TRIES && asProblem(error).isTransient,
        retryDelay: (count, error) => (asProblem(error).retryAfterS ?? 2 ** count / 2) * 1000,
      },
      mutations: { retry: false },
    },
  });
}
