import { expect, test } from "vitest";
import { administersAll, hostsOf, permissionsOf, rowsOf } from "./permissions";

test("permissions are rows of services, and the rows mean the same again", () => {
  const permissions = { read: ["pay/*", "shop", "mail"], tail: ["pay/*", "mail"], write: ["*"] };
  const rows = rowsOf(permissions);
  expect(rows).toEqual([
    { services: "pay/*, mail", names: ["read", "tail"] },
    { services: "shop", names: ["read"] },
    { services: "*", names: ["write"] },
  ]);
  const found = permissionsOf(rows);
  expect(found.ok && found.permissions).toEqual({
    read: ["pay/*", "mail", "shop"],
    tail: ["pay/*", "mail"],
    write: ["*"],
  });
  expect(rowsOf({})).toEqual([]);
});

test("empty rows mean nothing, and services without permissions are asked about", () => {
  const found = permissionsOf([
    { services: " ", names: ["admin"] },
    { services: "a b,a", names: ["read"] },
  ]);
  expect(found).toEqual({ ok: true, permissions: { read: ["a", "b"] } });
  expect(permissionsOf([{ services: "shop", names: [] }])).toEqual({
    ok: false,
    problem: "Choose what may be done with shop.",
  });
  expect(permissionsOf([]).ok).toBe(false);
});

test("hosts stand beside services, and alone", () => {
  const permissions = { write: ["nginx"], host: ["web-1", "db-*"] };
  const found = permissionsOf(rowsOf(permissions), hostsOf(permissions));
  expect(found.ok && found.permissions).toEqual(permissions);
  expect(permissionsOf([], "web-1 web-1, web-2")).toEqual({ ok: true, permissions: { host: ["web-1", "web-2"] } });
  expect(permissionsOf([{ services: "shop", names: [] }], "web-1").ok).toBe(false);
  expect(permissionsOf([], " , ").ok).toBe(false);
});

test("only admin on all services administers", () => {
  const may = (services: string[]) =>
    administersAll({ kind: "in", identity: { subject: "user:1", name: "ann", permissions: { admin: services } } });
  expect([may(["*"]), may(["pay/*"]), administersAll({ kind: "open" })]).toEqual([true, false, false]);
});
