import { expect, test } from "vitest";
import { choice, flag, formatSearch, list, parseSearch, text } from "./search";

const SPEC = {
  q: text(),
  mode: choice(["a", "b"], "a"),
  level: list(["INFO", "WARN"]),
  name: list<string>(),
  live: flag(),
  from: text("-1h", 10),
};

test("a plain address is the plain state, and is written as nothing", () => {
  const plain = { q: "", mode: "a", level: [], name: [], live: false, from: "-1h" };
  expect(parseSearch(SPEC, "")).toEqual(plain);
  expect(formatSearch(SPEC, parseSearch(SPEC, ""))).toBe("");
});

test("what is written is read again as it was", () => {
  const state = {
    q: 'a&b="c" +%',
    mode: "b",
    level: ["INFO", "WARN"],
    name: ["x/y", "z"],
    live: true,
    from: "",
  } as const;
  const search = formatSearch(SPEC, { ...state, level: [...state.level], name: [...state.name] });
  expect(parseSearch(SPEC, search)).toEqual(state);
});

test("what cannot be is read as the default", () => {
  const found = parseSearch(
    SPEC,
    "?mode=zzz&level=LOUD&level=INFO&level=INFO&live=yes&from=much-too-long-for-it&other=1",
  );
  expect(found).toEqual({ q: "", mode: "a", level: ["INFO"], name: [], live: false, from: "-1h" });
});
