/** What the address of Explore holds, and the question that it asks. */
import { choice, flag, list, text, type Values } from "../../router/search";
import { LEVELS, type LevelName } from "../../shared/Level";

export const ALL_TIME = "all";

export const EXPLORE = {
  q: text(),
  mode: choice(["filter", "highlight"], "filter"),
  service: list<string>(),
  level: list<LevelName>(LEVELS),
  /** `-15m`, a moment, or `all`. */
  from: text("-1h", 40),
  /** A moment; empty: open. */
  to: text("", 40),
  live: flag(),
  /** Id of the log whose details are open. */
  log: text("", 19),
  /** Correlation id whose whole story is shown. */
  story: text("", 128),
  panel: choice(["", "patterns"], ""),
  /** Id of the log that the table begins around; empty: at the newest. */
  at: text("", 19),
  /** Metadata fields with a column of their own. */
  column: list<string>(),
  /** Metadata fields whose values are counted; none: the commonest. */
  facet: list<string>(),
};

export type ExploreState = Values<typeof EXPLORE>;

/** Parameters of `/api/v1/logs` without limit, order and cursor. */
export function questionOf(state: ExploreState): URLSearchParams {
  const asked = new URLSearchParams();
  for (const service of state.service) asked.append("service_name", service);
  for (const level of state.level) asked.append("level", level);
  if (state.from !== ALL_TIME && state.from !== "") asked.set("start_time", state.from);
  if (state.to !== "" && state.to !== "now") asked.set("end_time", state.to);
  if (state.mode === "filter" && state.q.trim() !== "") asked.set("query", state.q);
  return asked;
}

/** The end is open: what comes belongs to the question. */
export function isOpen(state: ExploreState): boolean {
  return state.to === "" || state.to === "now";
}
