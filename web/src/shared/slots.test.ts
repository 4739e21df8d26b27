import { expect, test } from "vitest";
import { Slots } from "./slots";

test("a row that stays in sight keeps its element, one that comes takes one that is free", () => {
  const slots = new Slots();
  expect(slots.assign(["a", "b", "c"])).toEqual([0, 1, 2]);
  expect(slots.assign(["b", "c", "d"])).toEqual([1, 2, 0]);
  expect(slots.assign(["new", "b", "c", "d"])).toEqual([3, 1, 2, 0]);
  expect(slots.assign(["x", "y"])).toEqual([0, 1]);
});

test("no two rows in sight share an element, and there are no more elements than rows were in sight", () => {
  const slots = new Slots();
  for (let first = 0; first < 1_000; first += 7) {
    const keys = Array.from({ length: 20 + (first % 3) }, (_, index) => first + index);
    const given = slots.assign(keys);
    expect(new Set(given).size).toBe(keys.length);
    expect(Math.max(...given)).toBeLessThan(22);
    expect(slots.assign(keys)).toEqual(given);
  }
});
