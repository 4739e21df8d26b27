/** What the address of Connections holds. */
import { choice, flag, text } from "../../router/search";

export const CONNECTIONS = {
  /** Part of it. */
  username: text("", 200),
  /** Only those with errors. */
  errors: flag(),
  /** Only bookmarked ones. */
  bookmarked: flag(),
  show: choice(["logs", "list"], "logs"),
  /** On a narrow screen: which log is shown. */
  side: choice(["server", "client"], "server"),
};
