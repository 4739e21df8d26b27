import { expect, test } from "vitest";
import { commandsOf, shellWord } from "./commands";

test("commands name who is logged in, and nothing of a name is run", () => {
  expect(commandsOf("user:7", "ann o'b; rm -rf /").map(({ line }) => line)).toContain(
    "logfeed users passwd 'ann o'\\''b; rm -rf /'",
  );
  expect(commandsOf("key:3kzj6qvw2xah", "admin").map(({ line }) => line)).toContain("logfeed keys revoke 3kzj6qvw2xah");
  expect(commandsOf("anyone", "anyone").some(({ line }) => /passwd|revoke/.test(line))).toBe(false);
  expect([shellWord("ann"), shellWord("$(x)")]).toEqual(["ann", "'$(x)'"]);
});
