import { expect, test } from "vitest";
import { administersAll, permissionsOf, rowsOf } from "./permissions";

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

test("only admin on all services administers", () => {
  const may = (services: string[]) =>
    administersAll({ kind: "in", identity: { subject: "user:1", name: "ann", permissions: { admin: services } } });
  expect([may(["*"]), may(["pay/*"]), administersAll({ kind: "open" })]).toEqual([true, false, false]);
});
