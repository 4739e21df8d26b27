import { expect, test } from "vitest";
import { type HistogramAnswer, stackOf } from "./stack";

test("counts are stacked with the worst at the bottom, and levels without any left out", () => {
  const answer: HistogramAnswer = {
    start_time: "2026-01-01T00:00:00Z",
    end_time: "2026-01-01T00:02:00Z",
    bucket_s: 60,
    buckets: [
      { start_time: "2026-01-01T00:00:00Z", counts: { INFO: 3, ERROR: 1 } },
      { start_time: "2026-01-01T00:01:00Z", counts: { WARN: 2 } },
    ],
    total: 6,
    counted_from: null,
    is_estimated: false,
  };
  const stack = stackOf(answer, ["DEBUG", "INFO", "WARN", "ERROR"]);
  expect(stack.levels).toEqual(["INFO", "WARN", "ERROR"]);
  expect(stack.tops).toEqual([
    [4, 2],
    [1, 2],
    [1, 0],
  ]);
  expect(stack.endS - stack.startS).toBe(120);
  expect(stack.times[1]).toBe(stack.startS + 60);
});
