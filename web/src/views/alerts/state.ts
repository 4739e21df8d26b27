/** What the address of Alerts holds. */
import { choice, text, type Values } from "../../router/search";

export const ALERTS = {
  tab: choice(["alerts", "rules", "silences", "breakers", "messages"], "alerts"),
  state: choice(["", "firing", "resolved"], ""),
  /** Only of this rule; in the tab of rules: the one that is shown. */
  rule: text("", 100),
  /** Id of the alert that is open. */
  alert: text("", 64),
  /** Name of the rule that is being changed; `+`: a new one. */
  edit: text("", 100),
  form: choice(["form", "yaml"], "form"),
  /** What a rule is tried on. */
  since: choice(["-1h", "-6h", "-1d", "-7d", "-30d"], "-1d"),
  /** Matchers of a silence to be made, one a line; `+`: none yet. */
  silence: text("", 2_000),
};

export type AlertsState = Values<typeof ALERTS>;
export type UpdateAlerts = (patch: Partial<AlertsState>, options?: { replace?: boolean }) => void;
