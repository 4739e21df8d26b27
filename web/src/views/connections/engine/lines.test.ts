import { expect, test } from "vitest";
import { ApiProblem } from "../../../api/problem";
import { type Ask, type Line, Lines, lineNumber } from "./lines";

const line = (number: number): Line => ({
  id: String(number),
  timestamp: `2026-01-31T12:00:${String(number).padStart(2, "0")}.000000Z`,
  level: "INFO",
  message: `line ${number}`,
  metadata: { line: number },
});

/** Lines 0 to 9, three a page, an empty page after the first. */
const asked: string[] = [];
const ask: Ask = async (from, cursor) => {
  asked.push(`${from ?? ""} ${cursor ?? ""}`);
  const start =
    cursor === null ? (from === null ? 0 : Number(from.slice(17, 19))) : Number(cursor.replace("empty", ""));
  if (start === 3 && cursor === "3") return { logs: [], next_cursor: "empty3" };
  const logs = Array.from({ length: Math.min(3, 10 - start) }, (_, index) => line(start + index));
  return { logs, next_cursor: start + 3 < 10 ? String(start + 3) : null };
};

test("lines come once, in order, past pages without any", async () => {
  const lines = new Lines(ask);
  await lines.begin(null);
  for (let page = 0; page < 6; page++) await lines.more();
  expect(lines.current().rows.map(lineNumber)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  expect(lines.current().isFull).toBe(false);
});

test("a point leads into the middle, and the beginning is found again", async () => {
  const lines = new Lines(ask);
  await lines.begin(line(5).timestamp);
  expect(lines.current().isFromMiddle).toBe(true);
  expect(lines.current().rows[0]?.id).toBe("5");
  await lines.begin(null);
  expect(lines.current()).toMatchObject({ isFromMiddle: false, generation: 2 });
  expect(lines.current().rows[0]?.id).toBe("0");
});

test("no more are held than may be; the reader goes on where they are", async () => {
  const lines = new Lines(ask, 6);
  await lines.begin(null);
  for (let page = 0; page < 6; page++) await lines.more();
  expect(lines.current()).toMatchObject({ isFull: true });
  expect(lines.current().rows).toHaveLength(6);
  await lines.goOn();
  expect(lines.current().rows[0]?.id).toBe("5");
});

test("what was dropped meanwhile is not shown", async () => {
  let release = (): void => undefined;
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  const lines = new Lines(async (from, cursor, signal) => {
    const page = await ask(from, cursor, signal);
    if (from === null) await held;
    return page;
  });
  const first = lines.begin(null);
  await lines.begin(line(5).timestamp);
  release();
  await first;
  expect(lines.current().rows[0]?.id).toBe("5");
});

test("an error is told", async () => {
  const lines = new Lines(async () => {
    throw new ApiProblem(503, "Busy", "later");
  });
  await lines.begin(null);
  expect(lines.current()).toMatchObject({ phase: "failed", problem: { detail: "later" } });
});
