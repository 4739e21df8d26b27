import { describe, expect, test } from "vitest";
import { momentOf, parseTime, shownOffset, shownTime, tickText } from "./times";

/** A Thursday. */
const NOW = Date.UTC(2026, 0, 15, 9, 0, 0);

const read = (text: string) => {
  const parsed = parseTime(text, NOW, "UTC");
  return parsed.ok ? parsed.text : parsed.problem;
};

describe("a time as people write it", () => {
  test.each([
    ["-15m", "-15m"],
    ["15m", "-15m"],
    ["2 h", "-2h"],
    ["last 7d", "-7d"],
    ["30 minutes ago", "-30m"],
    ["1 week", "-1w"],
    ["NOW", "now"],
    ["", ""],
  ])("%s stays relative", (text, wanted) => expect(read(text)).toBe(wanted));

  test.each([
    ["yesterday 17:30", "2026-01-14T17:30:00.000Z"],
    ["Yesterday at 17:30", "2026-01-14T17:30:00.000Z"],
    ["today 08:15", "2026-01-15T08:15:00.000Z"],
    ["08:15", "2026-01-15T08:15:00.000Z"],
    ["17:30", "2026-01-14T17:30:00.000Z"],
    ["8:15:30.25", "2026-01-15T08:15:30.250Z"],
    ["yesterday", "2026-01-14T00:00:00.000Z"],
    ["monday 9:00", "2026-01-12T09:00:00.000Z"],
    ["thu 9:00", "2026-01-08T09:00:00.000Z"],
    ["2026-01-31", "2026-01-31T00:00:00.000Z"],
    ["2026-01-31 12:00", "2026-01-31T12:00:00.000Z"],
    ["2026-01-31T12:00:00Z", "2026-01-31T12:00:00.000Z"],
    ["2026-01-31T12:00:00+02:00", "2026-01-31T10:00:00.000Z"],
    ["2026-01-31T12:00", "2026-01-31T12:00:00.000Z"],
  ])("%s is a moment", (text, wanted) => expect(read(text)).toBe(wanted));

  test.each(["soon", "25:00", "2026-02-30", "12:61", "-15", "yesterday noon", "15x"])(
    "%s is none, and says what is",
    (text) => {
      expect(read(text)).toContain("not a time: write -15m");
    },
  );

  test("without a zone is the reader's own", () => {
    const parsed = parseTime("2026-01-31 12:00", NOW, "local");
    expect(parsed).toEqual({ ok: true, text: new Date(2026, 0, 31, 12, 0).toISOString() });
  });
});

test("what the address holds becomes a moment", () => {
  expect(momentOf("-1h", NOW)).toBe(NOW - 3_600_000);
  expect(momentOf("now", NOW)).toBe(NOW);
  expect(momentOf("", NOW)).toBeNull();
  expect(momentOf("2026-01-31T12:00:00.000Z", NOW)).toBe(Date.UTC(2026, 0, 31, 12));
  expect(momentOf("nonsense", NOW)).toBeNull();
});

test("times are shown with milliseconds, and the year where it is another", () => {
  expect(shownTime("2026-01-31T12:34:56.789123Z", "UTC", 2026)).toBe("01-31 12:34:56.789");
  expect(shownTime("2025-01-31T12:34:56.789123Z", "UTC", 2026)).toBe("2025-01-31 12:34:56.789");
});

test("an axis says days, minutes or seconds, as its steps are", () => {
  const at = Date.UTC(2026, 0, 31, 12, 30, 15);
  expect([86_400, 3_600, 10].map((stepS) => tickText(at, stepS, "UTC"))).toEqual(["01-31", "12:30", "12:30:15"]);
  expect(tickText(Date.UTC(2026, 0, 31), 3_600, "UTC")).toBe("01-31 00:00");
});

test("offsets keep what microseconds say", () => {
  const first = "2026-01-31T12:00:00.000000Z";
  expect(shownOffset("2026-01-31T12:00:00.000250Z", first)).toBe("+0.25 ms");
  expect(shownOffset("2026-01-31T12:00:01.500000Z", first)).toBe("+1.500 s");
  expect(shownOffset("2026-01-31T12:02:03.000000Z", first)).toBe("+2 min 3 s");
  expect(shownOffset("2026-02-02T13:00:00.000000Z", first)).toBe("+2 d 1 h");
});
