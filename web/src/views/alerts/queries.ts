/** What Alerts asks of the API: each answer goes on by itself while it is looked at. */
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { answerOf, client, type Schemas } from "../../api/client";
import { toast, toastProblem } from "../../shared/toast";
import type { RuleDocument } from "./engine/rule";

const EVERY_MS = 5_000;
const SHOWN_MAX = 200;

export type Alert = Schemas["AlertModel"];
export type StoredRule = Schemas["RuleModel"];
export type Silence = Schemas["SilenceModel"];
export type Breaker = Schemas["BreakerModel"];
export type Message = Schemas["NotificationModel"];
export type Trial = Schemas["TrialModel"];

export function useAlerts(asked: { rule?: string; state?: string } = {}) {
  const query = {
    limit: SHOWN_MAX,
    ...(asked.rule ? { rule: asked.rule } : {}),
    ...(asked.state ? { state: asked.state } : {}),
  };
  return useQuery({
    queryKey: ["alerts", "alerts", asked.rule ?? "", asked.state ?? ""],
    queryFn: ({ signal }) => answerOf(client.GET("/api/v1/alerts", { params: { query }, signal })),
    refetchInterval: EVERY_MS,
    placeholderData: (before) => before,
  });
}

export function useRules() {
  return useQuery({
    queryKey: ["alerts", "rules"],
    queryFn: ({ signal }) => answerOf(client.GET("/api/v1/alerts/rules", { signal })),
    refetchInterval: EVERY_MS,
  });
}

export function useSilences() {
  return useQuery({
    queryKey: ["alerts", "silences"],
    queryFn: ({ signal }) => answerOf(client.GET("/api/v1/alerts/silences", { signal })),
    refetchInterval: EVERY_MS,
  });
}

export function useBreakers() {
  return useQuery({
    queryKey: ["alerts", "breakers"],
    queryFn: ({ signal }) => answerOf(client.GET("/api/v1/alerts/breakers", { signal })),
    refetchInterval: EVERY_MS,
  });
}

export function useMessages(rule: string) {
  const query = { limit: SHOWN_MAX, ...(rule ? { rule } : {}) };
  return useQuery({
    queryKey: ["alerts", "messages", rule],
    queryFn: ({ signal }) => answerOf(client.GET("/api/v1/alerts/notifications", { params: { query }, signal })),
    refetchInterval: EVERY_MS,
  });
}

/** A change; all lists are asked anew after it. done: what is said then. */
export function useChange<T>(change: (value: T) => Promise<unknown>, done: (value: T) => string) {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: change,
    onSuccess: (_, value) => {
      toast(done(value));
      return queries.invalidateQueries({ queryKey: ["alerts"] });
    },
    onError: toastProblem,
  });
}

// Documents are the server's to check: their fields have no types here.
export function createRule(document: RuleDocument) {
  return answerOf(client.POST("/api/v1/alerts/rules", { body: document as never }));
}

export function replaceRule(name: string, document: RuleDocument) {
  return answerOf(client.PUT("/api/v1/alerts/rules/{name}", { params: { path: { name } }, body: document as never }));
}

export function deleteRule(name: string) {
  return client.DELETE("/api/v1/alerts/rules/{name}", { params: { path: { name } } });
}

export function endSilence(id: string) {
  return client.DELETE("/api/v1/alerts/silences/{silence_id}", { params: { path: { silence_id: id } } });
}

export function resetBreaker({ rule, channel }: { rule: string; channel: string }) {
  return client.POST("/api/v1/alerts/breakers/reset", { body: { rule, channel } });
}

export function tryRule(document: RuleDocument, since: string, signal: AbortSignal) {
  return answerOf(
    client.POST("/api/v1/alerts/trials", { body: { rule: document, start_time: since } as never, signal }),
  );
}
