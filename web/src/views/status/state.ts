/** What the address of Status holds. */
import { choice, text, type Values } from "../../router/search";

export const STATUS = {
  tab: choice(["throughput", "services", "topics", "pipeline", "tiers"], "throughput"),
  from: choice(["-15m", "-1h", "-6h", "-1d"], "-1h"),
  /** Only of this one. */
  service: text("", 200),
  /** Part of names. */
  find: text("", 200),
};

export type StatusState = Values<typeof STATUS>;
export type UpdateStatus = (patch: Partial<StatusState>, options?: { replace?: boolean }) => void;
