/** Permissions as people choose them: services by name, prefix or `*`, and what may be done with each. Pure. */
import type { Permission, SessionState } from "../../../api/session";

export const PERMISSIONS: readonly { name: Permission; meaning: string }[] = [
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

/** Permission -> services, as the server has them. */
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

/** What the rows mean together, or what is missing. */
export function permissionsOf(
  rows: readonly Row[],
): { ok: true; permissions: Permissions } | { ok: false; problem: string } {
  const permissions: Permissions = {};
  for (const { services, names } of rows) {
    const found = services.split(/[\s,]+/).filter((each) => each !== "");
    if (found.length === 0) continue;
    if (names.length === 0) return { ok: false, problem: `Choose what may be done with ${found.join(", ")}.` };
    for (const name of names) permissions[name] = [...new Set([...(permissions[name] ?? []), ...found])];
  }
  if (Object.keys(permissions).length === 0) {
    return { ok: false, problem: "Name at least one service, a prefix such as pay/*, or * for all." };
  }
  return { ok: true, permissions };
}

/** Whether somebody may administer keys and users. */
export function administersAll(state: SessionState): boolean {
  return state.kind === "in" && (state.identity.permissions.admin ?? []).includes("*");
}
