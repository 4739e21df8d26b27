import { describe, expect, test } from "vitest";
import { goneOn, HEIGHT_MAX_PX, heightPx, inSight, type Place, placeOf, rowsMaxOf } from "./stretch";

const ROW = 22;
const VIEW = 600;
const ROWS = 3_000_000;
/** Times that who scrolls through all rows comes near the edge of a stretch, each of which has the reader in its middle. */
const SELDOM = (ROWS * ROW) / (HEIGHT_MAX_PX / 3);
const MAX = rowsMaxOf(ROW);
const offset = ({ origin, topPx }: Place) => origin * ROW + topPx;
const move = (place: Place, count: number, isJump = false) => goneOn(place, count, VIEW, ROW, isJump);

test("what is in sight is drawn, with some more above and below", () => {
  const { first, last } = inSight({ origin: 0, topPx: 2_200 }, VIEW, ROW);
  expect(first).toBe(100 - 12);
  expect(last).toBe(100 + Math.ceil(VIEW / ROW) - 1 + 12);
  expect(inSight({ origin: 5_000, topPx: 2_200 }, VIEW, ROW)).toEqual({ first: first + 5_000, last: last + 5_000 });
  expect(inSight({ origin: 0, topPx: 0 }, VIEW, ROW).first).toBe(0);
});

test("a document is as high as its rows, up to what browsers can", () => {
  expect(heightPx(0, 1_000, ROW)).toBe(22_000);
  expect(heightPx(0, 2_000_000, ROW)).toBeLessThanOrEqual(HEIGHT_MAX_PX);
  expect(heightPx(1_999_000, 2_000_000, ROW)).toBe(22_000);
  expect(heightPx(5_000, 1_000, ROW)).toBe(0);
});

describe("a reader who", () => {
  test("has all rows in the document stays in it", () => {
    const place = { origin: 0, topPx: MAX * ROW - VIEW };
    expect(move(place, MAX)).toBe(place);
    expect(move(place, MAX, true)).toBe(place);
  });

  test("scrolls down without end sees every row pass, and seldom changes the stretch", () => {
    let place: Place = { origin: 0, topPx: 0 };
    let changes = 0;
    let count = 1_000;
    for (let px = 0; px < ROWS * ROW; px += 9_000) {
      // Pages come as they are needed.
      while (count * ROW < px + 9_000 + VIEW + 400 * ROW) count += 1_000;
      const known = move(place, count);
      if (known !== place) changes += 1;
      place = known;
      const scrolled = { ...place, topPx: place.topPx + 9_000 };
      expect(scrolled.topPx + VIEW).toBeLessThanOrEqual(heightPx(place.origin, count, ROW));
      place = move(scrolled, count);
      if (place !== scrolled) changes += 1;
      expect(offset(place)).toBe(px + 9_000);
    }
    expect(changes).toBeLessThan(SELDOM);
  });

  test("scrolls up again comes to the first row of all", () => {
    const count = ROWS;
    let place = placeOf(count * ROW - VIEW, count, ROW);
    let changes = 0;
    for (let px = offset(place); px > 0; px -= 9_000) {
      const scrolled = { ...place, topPx: Math.max(0, place.topPx - 9_000) };
      place = move(scrolled, count);
      if (place !== scrolled) changes += 1;
      expect(offset(place)).toBe(Math.max(0, px - 9_000));
    }
    expect(place).toEqual({ origin: 0, topPx: 0 });
    expect(changes).toBeLessThan(SELDOM);
  });

  test("pulls the scroll bar to an edge means that of all rows", () => {
    const count = ROWS;
    const middle = placeOf((count / 2) * ROW, count, ROW);
    expect(move({ ...middle, topPx: 0 }, count, true)).toEqual({ origin: 0, topPx: 0 });
    const end = move({ ...middle, topPx: heightPx(middle.origin, count, ROW) - VIEW }, count, true);
    expect(offset(end)).toBe(count * ROW - VIEW);
    expect(end.topPx + VIEW).toBe(heightPx(end.origin, count, ROW));
  });

  test("is left with fewer rows stays as near as there is", () => {
    const place = placeOf(40_000_000, 3_000_000, ROW);
    expect(move(place, 1_000).origin).toBe(0);
    const fewer = move(place, 1_000_000);
    expect(heightPx(fewer.origin, 1_000_000, ROW)).toBeGreaterThan(VIEW);
  });
});
