/** What the addresses of Experiments hold: of the list, and of one experiment. */
import { list, text, type Values } from "../../router/search";
import { LEVELS, type LevelName } from "../../shared/Level";

export const STATUSES = ["queued", "running", "paused", "canceled", "errored", "completed"] as const;
export type Status = (typeof STATUSES)[number];

export const LIST = {
  q: text("", 200),
  status: list<Status>(STATUSES),
};

export const ONE = {
  level: list<LevelName>(LEVELS),
  agent: list<string>(),
  /** A moment, or `-15m`; empty: from the beginning. */
  from: text("", 40),
  /** A moment; empty: open. */
  to: text("", 40),
  /** Id of the log that is shown whole. */
  log: text("", 19),
};

export type OneState = Values<typeof ONE>;
