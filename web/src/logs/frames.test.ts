import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { type Batch, FLUSH_MS, Gathering, WAITING_MAX } from "./frames";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const frame = (from: number, count: number, token: string) =>
  JSON.stringify({ logs: Array.from({ length: count }, (_, index) => ({ id: String(from + index) })), token });

test("frames are handed over at most four times a second, each row once", () => {
  const batches: Batch[] = [];
  const gathering = new Gathering((batch) => {
    batches.push(batch);
    gathering.taken();
  });
  for (let each = 0; each < 20; each++) {
    gathering.add(frame(each * 10, 10, `t${each}`));
    vi.advanceTimersByTime(50);
  }
  vi.advanceTimersByTime(FLUSH_MS);
  expect(batches.length).toBeLessThanOrEqual(5);
  expect(batches.flatMap(({ rows }) => rows.map(({ id }) => id))).toEqual(
    Array.from({ length: 200 }, (_, id) => String(id)),
  );
  expect(batches.at(-1)?.token).toBe("t19");
});

test("a page that does not take them gets the newest, and the number of those left out", () => {
  const batches: Batch[] = [];
  const gathering = new Gathering((batch) => batches.push(batch));
  gathering.add(frame(0, 1, "a"));
  vi.advanceTimersByTime(FLUSH_MS);
  for (let each = 0; each < 6; each++) gathering.add(frame(each * 10_000, 10_000, `b${each}`));
  gathering.add(JSON.stringify({ skipped: 7, token: "c" }));
  vi.advanceTimersByTime(FLUSH_MS * 10);
  expect(batches).toHaveLength(1);
  gathering.taken();
  vi.advanceTimersByTime(FLUSH_MS);
  expect(batches[1]?.rows).toHaveLength(WAITING_MAX);
  expect(batches[1]?.skipped).toBe(60_000 - WAITING_MAX + 7);
  expect(batches[1]?.rows.at(-1)?.id).toBe("59999");
});

test("a gap is passed on", () => {
  const batches: Batch[] = [];
  const gathering = new Gathering((batch) => batches.push(batch));
  gathering.add(JSON.stringify({ gap: { reason: "expired", query: "start_time=x" }, token: "t" }));
  vi.advanceTimersByTime(FLUSH_MS);
  expect(batches[0]).toMatchObject({ gap: { reason: "expired" }, rows: [], token: "t" });
});
