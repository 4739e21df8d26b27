import { expect, test } from "vitest";
import { correlationWords, plotted, sharedRange, shownValue } from "./figures";

test("values are said in the unit that fits", () => {
  expect([shownValue(0.0412, "s"), shownValue(2.5, "s"), shownValue(41.23, "ms"), shownValue(1_500, "ms")]).toEqual([
    "41.2 ms",
    "2.5 s",
    "41.2 ms",
    "1.5 s",
  ]);
  expect([shownValue(12_222.61, "bytes"), shownValue(12, "bytes"), shownValue(3_400_000, "bytes")]).toEqual([
    "12.2 kB",
    "12 B",
    "3.4 MB",
  ]);
});

test("points are in order of time, each with its line", () => {
  const { times, values, lines } = plotted([
    ["2026-01-31T12:00:02Z", 3, 9],
    ["2026-01-31T12:00:01Z", 1, 8],
    ["2026-01-31T12:00:02Z", 2, 7],
  ]);
  expect(values).toEqual([1, 2, 3]);
  expect(lines).toEqual([8, 7, 9]);
  expect((times[1] as number) - (times[0] as number)).toBe(1);
});

test("all plots share one time, also of a single point", () => {
  expect(sharedRange([[], []])).toBeNull();
  expect(sharedRange([[["1970-01-01T00:00:10Z", 1, 1]], []])).toEqual([9, 11]);
  expect(sharedRange([[["1970-01-01T00:00:10Z", 1, 1]], [["1970-01-01T00:00:20Z", 1, 1]]])).toEqual([10, 20]);
});

test("a correlation is said in words", () => {
  expect([null, 0.1, -0.3, 0.6, 0.95].map(correlationWords)).toEqual([
    "not enough to say",
    "no relation",
    "weak: more errors, less latency",
    "clear: more errors, more latency",
    "strong: more errors, more latency",
  ]);
});
