import { expect, test } from "vitest";
import { byMinute, byService, type LedgerRow, reasons, stacked } from "./ledger";

const row = (minute: number, service_name: string, more: Partial<LedgerRow> = {}): LedgerRow => ({
  minute: new Date(minute * 60_000).toISOString(),
  service_name,
  received: 0,
  stored: {},
  filtered: {},
  rejected: {},
  duplicate: 0,
  dead_lettered: {},
  balanced: true,
  ...more,
});

test("each minute of the time has its sums, empty ones too", () => {
  const rows = [
    row(11, "a", { stored: { INFO: 2, ERROR: 1 } }),
    row(11, "b", { stored: { INFO: 4 }, duplicate: 5 }),
    row(13, "a", { rejected: { "too long": 1 } }),
    row(99, "a", { stored: { INFO: 1_000 } }),
  ];
  const { times, counts } = byMinute(rows, 10 * 60 + 30, 14 * 60);
  expect(times).toEqual([600, 660, 720, 780]);
  expect(counts.stored).toEqual([0, 7, 0, 0]);
  expect(counts.duplicate).toEqual([0, 5, 0, 0]);
  expect(counts.rejected).toEqual([0, 0, 0, 1]);
});

test("services add up over minutes, most first", () => {
  const sums = byService([
    row(1, "b", { received: 3, balanced: false }),
    row(2, "b", { stored: { INFO: 3 }, balanced: false }),
    row(1, "a", { received: 5, stored: { INFO: 4 } }),
  ]);
  expect(sums.map(({ service, received, isBalanced }) => [service, received, isBalanced])).toEqual([
    ["a", 5, false],
    ["b", 3, true],
  ]);
});

test("reasons say why logs were not stored", () => {
  const sums = row(1, "a", { filtered: { debug: 2 }, rejected: { "too long": 7 }, dead_lettered: { decode: 2 } });
  expect(reasons(sums).map(({ outcome, reason, count }) => [outcome, reason, count])).toEqual([
    ["rejected", "too long", 7],
    ["filtered", "debug", 2],
    ["dead_lettered", "decode", 2],
  ]);
});

test("a stack has each series on those before it", () => {
  expect(
    stacked([
      [1, 2],
      [3, 0],
      [1, 1],
    ]),
  ).toEqual([
    [1, 2],
    [4, 2],
    [5, 3],
  ]);
});
