import { expect, test } from "vitest";
import { matchersOf, parseMatchers } from "./matchers";
import { conditionFor, conditionOf, labelsOf, logsAddress, secondsOf, sentence, withField, words } from "./rule";
import { linesOf, placeOf } from "./spans";
import { fromYaml, toYaml } from "./yaml";

const RULE = {
  name: "payment-errors",
  query: "service:pay/* level>=error",
  window: "5m",
  for: "1m",
  condition: { count: { at_least: 10 } },
  group_by: ["service"],
};

test("a rule is the same after YAML", () => {
  expect(fromYaml(toYaml(RULE))).toEqual({ ok: true, document: RULE });
});

test("YAML is read as it stands in a file of rules, one rule at a time", () => {
  expect(fromYaml("rules:\n  - name: a\n    condition: {silence: {}}\n")).toEqual({
    ok: true,
    document: { name: "a", condition: { silence: {} } },
  });
  expect(fromYaml("rules:\n  - name: a\n  - name: b\n")).toEqual({ ok: false, problem: "expected one rule, got 2" });
  for (const text of ["", "- 1\n- 2", "just words", "name: [", "a: 1\na: 2"])
    expect(fromYaml(text).ok, text).toBe(false);
  expect(fromYaml("name: a\n  b: c")).toMatchObject({ problem: expect.stringContaining("line 1, column 7") });
});

test("aliases without end are refused, not followed", () => {
  const bomb = ["a0: &a0 [x]", ...Array.from({ length: 30 }, (_, n) => `a${n + 1}: &a${n + 1} [*a${n}, *a${n}]`)].join(
    "\n",
  );
  expect(fromYaml(bomb).ok).toBe(false);
});

test("a condition is said in a sentence", () => {
  expect(sentence(RULE)).toBe("at least 10 logs in 5m, for 1m, by service");
  expect(sentence({ condition: { error_ratio: { at_least: 0.05, min_logs: 100 } }, window: "10m" })).toBe(
    "at least 5% errors of 100 logs or more in 10m",
  );
  expect(sentence({ condition: { silence: {} } })).toBe("no log in 5m");
  expect(sentence({ condition: { moon: {} } })).toMatch(/does not know/);
});

test("a form changes one field and leaves what it does not know", () => {
  const document = { ...RULE, lateness: "30s" };
  expect(withField(document, "for", "")).not.toHaveProperty("for");
  expect(withField(document, "group_by", [])).not.toHaveProperty("group_by");
  expect(withField(document, "severity", "critical")).toEqual({ ...document, severity: "critical" });
  expect(Object.keys(withField(document, "query", "x"))).toEqual(Object.keys(document));
  expect(conditionOf({ condition: conditionFor("rate") })[1]).toEqual({ at_least: 1, per: "1s" });
  expect(words(" a, b  c,")).toEqual(["a", "b", "c"]);
  expect(labelsOf("team=payments, area = eu,x")).toEqual({ team: "payments", area: "eu", x: "" });
});

test("an alert leads to its logs", () => {
  const address = new URL(logsAddress(RULE, { service: "pay/card", rule: "x" }, "-5m", null), "http://x");
  expect(address.searchParams.get("q")).toBe("service:pay/* level>=error service:pay/card");
  const or = new URL(
    logsAddress({ query: "a OR b", group_by: ["user.id"] }, { "user.id": 'x "y"' }, "-5m", "now"),
    "http://x",
  );
  expect(or.searchParams.get("q")).toBe('(a OR b) metadata.user.id:"x \\"y\\""');
});

test("durations are read as the server writes them", () => {
  expect([secondsOf("1h30m"), secondsOf("45s"), secondsOf(300), secondsOf(undefined), secondsOf("7d")]).toEqual([
    5_400, 45, 300, 0, 604_800,
  ]);
});

test("matchers are read line by line", () => {
  expect(parseMatchers("rule=a\n\n service =~ pay/.* \nx!=\n")).toEqual({
    ok: true,
    matchers: [
      { label: "rule", op: "=", value: "a" },
      { label: "service", op: "=~", value: "pay/.*" },
      { label: "x", op: "!=", value: "" },
    ],
  });
  expect(parseMatchers("nothing")).toMatchObject({ ok: false, problem: expect.stringContaining("nothing") });
  expect(parseMatchers(" \n").ok).toBe(false);
  expect(matchersOf("r", ["service"], { service: "a", rule: "r", severity: "warning" })).toBe("rule=r\nservice=a");
});

test("decisions are spans of time, a line for each group", () => {
  const at = (minute: number) => `2026-01-31T12:${String(minute).padStart(2, "0")}:00Z`;
  const decision = (state: "firing" | "resolved", minute: number, service: string) => ({
    state,
    at: at(minute),
    started_at: at(1),
    labels: { service },
    value: 3,
  });
  const lines = linesOf([
    decision("firing", 10, "a"),
    decision("firing", 20, "b"),
    decision("resolved", 30, "a"),
    decision("firing", 40, "a"),
    decision("resolved", 41, "c"),
  ]);
  expect(lines.map(({ name, spans }) => [name, spans.map(({ endMs }) => endMs !== null)])).toEqual([
    ["service=a", [true, false]],
    ["service=b", [false]],
    ["service=c", [true]],
  ]);
  const [start, end] = [Date.parse(at(0)), Date.parse(at(50))];
  expect(placeOf(lines[0]?.spans[0] as never, start, end)).toEqual({ left: 20, width: 40 });
  expect(placeOf(lines[1]?.spans[0] as never, start, end)).toEqual({ left: 40, width: 60 });
  expect(placeOf({ startMs: end, endMs: end, value: 1 }, start, end)).toEqual({ left: 99.5, width: 0.5 });
});
