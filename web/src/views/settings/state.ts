/** What the address of Settings holds. */
import { choice, flag, text, type Values } from "../../router/search";

export const SETTINGS = {
  tab: choice(["session", "keys", "users"], "session"),
  /** Part of names. */
  find: text("", 200),
  /** Revoked and expired keys too. */
  all: flag(),
};

export type SettingsState = Values<typeof SETTINGS>;
export type UpdateSettings = (patch: Partial<SettingsState>, options?: { replace?: boolean }) => void;
