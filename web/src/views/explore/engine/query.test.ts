import { describe, expect, test } from "vitest";
import type { Row } from "../../../logs/row";
import { completions, fieldsOf } from "./complete";
import { marksOf, metadataTerm, quoted, tokens, withTerm } from "./query";

describe("tokens", () => {
  test("know signs, fields, phrases and regular expressions, with their places", () => {
    const query = 'a -b level>=warn user.name:"Ada L" /x y/i NOT c (d)';
    const found = tokens(query);
    for (const { start, end, text } of found) expect(query.slice(start, end)).toBe(text);
    expect(
      found.map(({ kind, field, operator, value, isNegated }) => [kind, field, operator, value, isNegated]),
    ).toEqual([
      ["word", "", "", "a", false],
      ["word", "", "", "b", true],
      ["word", "level", ">=", "warn", false],
      ["phrase", "user.name", ":", "Ada L", false],
      ["regex", "", "", "x y", false],
      ["keyword", "", "", "", false],
      ["word", "", "", "c", true],
      ["bracket", "", "", "", false],
      ["word", "", "", "d", false],
      ["bracket", "", "", "", false],
    ]);
  });

  test.each(["", " ", '"', "/", "level:", "-", '-"', "((", "a:b:c", "std::vector", "https://x/y", "\\", "-(a b)"])(
    "of %j end, whatever is not closed",
    (query) => {
      const found = tokens(query);
      expect(found.every(({ start, end }) => start < end && end <= query.length)).toBe(true);
    },
  );

  test("take :: and :// for text", () => {
    expect(tokens("std::vector https://x")[0]).toMatchObject({ field: "", value: "std::vector" });
    expect(tokens("std::vector https://x")[1]).toMatchObject({ field: "", value: "https://x" });
  });
});

test("marks are of the message alone, and not of what is excluded", () => {
  expect(marksOf('Timeout "Two Words" -no level:error message:yes /a.b/i OR /(?i)c/')).toEqual({
    texts: ["timeout", "two words", "yes"],
    regexes: [
      { source: "a.b", flags: "gsi" },
      { source: "c", flags: "gsi" },
    ],
  });
});

describe("terms of values", () => {
  test("are quoted where they must be", () => {
    expect(quoted("checkout/v2")).toBe("checkout/v2");
    expect(quoted("two words")).toBe('"two words"');
    expect(quoted('say "hi"')).toBe('"say \\"hi\\""');
    expect(quoted("ends with \\")).toBe('"ends with \\\\"');
    expect(quoted("pay*")).toBe('"pay*"');
  });

  test("name metadata fields, also those called like others", () => {
    expect(metadataTerm(["http", "status"], 500)).toBe("http.status:500");
    expect(metadataTerm(["level"], "x")).toBe("metadata.level:x");
    expect(metadataTerm(["ok"], true)).toBe("ok:true");
    for (const value of [null, [1], { a: 1 }, ""]) expect(metadataTerm(["a"], value)).toBeNull();
    expect(metadataTerm(["odd name"], 1)).toBeNull();
  });

  test("are added once, turn their opposite round, and stand outside of OR", () => {
    expect(withTerm("", "a:1", false)).toBe("a:1");
    expect(withTerm("x", "a:1", true)).toBe("x -a:1");
    expect(withTerm("x a:1", "a:1", false)).toBe("x a:1");
    expect(withTerm("x a:1 y", "a:1", true)).toBe("x -a:1 y");
    expect(withTerm("x -a:1", "a:1", false)).toBe("x a:1");
    expect(withTerm("x OR y", "a:1", false)).toBe("(x OR y) a:1");
  });
});

describe("completion", () => {
  const row = (metadata: Record<string, unknown>) => ({ metadata }) as unknown as Row;
  const rows = [
    row({ http: { status: 500 }, user: "ada" }),
    row({ http: { status: 500 } }),
    row({ http: { status: 200 }, tags: [1] }),
  ];
  const sources = { services: ["checkout", "mail"], fields: fieldsOf(rows) };
  const offered = (query: string, caret = query.length) =>
    completions(query, caret, sources).options.map(({ text }) => text);

  test("offers fields, those of metadata too", () => {
    expect(offered("le")).toEqual(["level:"]);
    expect(offered("-sta")).toEqual(["-http.status:"]);
    expect(offered("")).toContain("user:");
    expect(offered("x", 1)).toEqual([]);
  });

  test("offers values, the most frequent first", () => {
    expect(offered("level:wa")).toEqual(["level:warn"]);
    expect(offered("service:")).toEqual(["service:checkout", "service:mail"]);
    expect(offered("http.status:")).toEqual(["http.status:500", "http.status:200"]);
    expect(offered("level>=e")).toContain("level>=error");
  });

  test("replaces the term at the caret alone", () => {
    expect(completions("a level:wa b", 10, sources)).toMatchObject({ start: 2, end: 10 });
  });
});
