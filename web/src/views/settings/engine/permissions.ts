/**
 * Permissions as people choose them: services by name, prefix or `*`, and what may be done with each; beside them hosts, which
 * are named alike but are no services. Pure.
 */
import type { Permission, SessionState } from "../../../api/session";

interface Meaning {
  name: Permission;
  meaning: string;
}

/** What may be done with services. */
export const PERMISSIONS: readonly Meaning[] = [
  { name: "read", meaning: "pages, look-ups, services, ledger, experiments, connections" },
  { name: "tail", meaning: "logs as they come, derived topics" },
  { name: "export", meaning: "results as files" },
  { name: "alert", meaning: "rules, alerts, silences" },
  { name: "write", meaning: "sending logs" },
  {
    name: "admin",
    meaning: "all of these but write; over all services also how the installation stands, keys and users",
  },
];

/** All that may be held. */
export const ALL_PERMISSIONS: readonly Meaning[] = [
  ...PERMISSIONS,
  { name: "host", meaning: "registering hosts by these names, whose files are then asked for: for logfeed agent" },
];

/** Permission -> services (of `host`: hosts), as the server has them. */
export type Permissions = Partial<Record<Permission, string[]>>;

export interface Row {
  /** Names and prefixes with * behind them, with commas or spaces between; or *. */
  services: string;
  names: Permission[];
}

export const EMPTY_ROW: Row = { services: "", names: ["read"] };

/** Services with the same permissions are a row. */
export function rowsOf(permissions: Record<string, string[]>): Row[] {
  const byService = new Map<string, Permission[]>();
  for (const { name } of PERMISSIONS) {
    for (const service of permissions[name] ?? []) byService.set(service, [...(byService.get(service) ?? []), name]);
  }
  const rows = new Map<string, Row>();
  for (const [service, names] of byService) {
    const row = rows.get(names.join());
    rows.set(names.join(), { services: row === undefined ? service : `${row.services}, ${service}`, names });
  }
  return [...rows.values()];
}

/** The hosts that may be registered, as they are written. */
export const hostsOf = (permissions: Record<string, string[]>): string => (permissions.host ?? []).join(", ");

/** What the rows mean together, and the hosts; or what is missing. */
export function permissionsOf(
  rows: readonly Row[],
  hosts = "",
): { ok: true; permissions: Permissions } | { ok: false; problem: string } {
  const permissions: Permissions = {};
  for (const { services, names } of rows) {
    const found = namesIn(services);
    if (found.length === 0) continue;
    if (names.length === 0) return { ok: false, problem: `Choose what may be done with ${found.join(", ")}.` };
    for (const name of names) permissions[name] = [...new Set([...(permissions[name] ?? []), ...found])];
  }
  const named = [...new Set(namesIn(hosts))];
  if (named.length > 0) permissions.host = named;
  if (Object.keys(permissions).length === 0) {
    return { ok: false, problem: "Name at least one service, a prefix such as pay/*, or * for all." };
  }
  return { ok: true, permissions };
}

const namesIn = (text: string): string[] => text.split(/[\s,]+/).filter((each) => each !== "");

/** Whether somebody may administer keys and users. */
export function administersAll(state: SessionState): boolean {
  return state.kind === "in" && (state.identity.permissions.admin ?? []).includes("*");
}
