import { expect, test } from "vitest";
import { shownBytes, shownDistance, shownDuration, shownMoment } from "./times";

const NOW = Date.parse("2026-06-01T00:00:00Z");

test("a moment has its year only where it is another one", () => {
  expect(shownMoment("2026-01-31T12:00:05.123456Z", "UTC", NOW)).toBe("01-31 12:00:05");
  expect(shownMoment("2025-01-31T12:00:05Z", "UTC", NOW)).toBe("2025-01-31 12:00:05");
  expect(shownMoment("no time", "UTC", NOW)).toBe("");
});

test("durations are said in their two largest units", () => {
  const said = [0, 999, 12_000, 180_000, 185_000, 7_200_000, 7_500_000, 86_400_000, 3 * 86_400_000 + 4 * 3_600_000];
  expect(said.map(shownDuration)).toEqual([
    "0 ms",
    "999 ms",
    "12 s",
    "3 min",
    "3 min 5 s",
    "2 h",
    "2 h 5 min",
    "1 d",
    "3 d 4 h",
  ]);
});

test("a distance says which side of now it is", () => {
  expect(shownDistance("2026-05-31T23:59:48Z", NOW)).toBe("12 s ago");
  expect(shownDistance("2026-06-01T02:00:00Z", NOW)).toBe("in 2 h");
  expect(shownDistance("2026-06-01T00:00:00.2Z", NOW)).toBe("just now");
  expect(shownDistance("", NOW)).toBe("");
});

test("bytes are said in binary units", () => {
  expect([0, 1_023, 1_024, 1_536, 150 * 1_024, 3 * 1_024 ** 3].map(shownBytes)).toEqual([
    "0 B",
    "1023 B",
    "1.0 KiB",
    "1.5 KiB",
    "150 KiB",
    "3.0 GiB",
  ]);
});
