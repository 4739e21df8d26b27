import { describe, expect, test } from "vitest";
import { compareRows, type Row } from "./row";
import { type Limits, type Page, RowStore } from "./store";

const LIMITS: Limits = { rowsMax: 60, liveMax: 100, heldMax: 80 };

function row(number: number): Row {
  return {
    id: String(1_000 + number),
    timestamp: `2026-01-01T00:00:${String(Math.floor(number / 1000) % 60).padStart(2, "0")}.${String(number % 1000).padStart(3, "0")}000Z`,
    received_at: "",
    level: "INFO",
    severity: 9,
    service_name: "shop",
    message: `line ${number}`,
    correlation_id: null,
    metadata: {},
  };
}

/** What is stored at one moment, as the server pages through it: newest first, cursors are places. */
class Walk {
  readonly rows: Row[];
  constructor(rows: Row[]) {
    this.rows = [...rows].sort(compareRows);
  }
  page(from: number, limit: number): Page {
    const start = Math.max(0, from);
    const logs = this.rows.slice(start, from + limit);
    const end = start + logs.length;
    return {
      logs,
      next_cursor: end < this.rows.length ? String(end) : null,
      prev_cursor: start > 0 ? String(start) : null,
    };
  }
  older(store: RowStore, limit = 20): void {
    const { older } = store;
    if (older.kind === "cursor") store.addOlder(this.page(Number(older.cursor), limit));
    else if (older.kind === "before") {
      const from = this.rows.findIndex((each) => each.timestamp <= older.row.timestamp);
      store.addOlder(this.page(from < 0 ? this.rows.length : from, limit));
    }
  }
  newer(store: RowStore, limit = 20): number {
    const end = Number(store.newer);
    return store.addNewer(this.page(end - limit, limit));
  }
}

const upTo = (count: number, from = 0) => Array.from({ length: count }, (_, index) => row(from + index));
const ids = (store: RowStore) => store.rows.map((each) => each.id);
const isSorted = (store: RowStore) =>
  store.rows.every((each, i) => i === 0 || compareRows(store.rows[i - 1] as Row, each) < 0);

function started(walk: Walk, limits = LIMITS): RowStore {
  const store = new RowStore(limits);
  store.start(walk.page(0, 20));
  return store;
}

describe("walking", () => {
  test("to the oldest shows each row once, and the window stays bounded", () => {
    const walk = new Walk(upTo(500));
    const store = started(walk);
    const seen = new Map<string, number>();
    const note = () => {
      for (const [index, each] of store.rows.entries()) seen.set(each.id, store.base + index);
    };
    note();
    while (store.older.kind !== "end") {
      walk.older(store);
      expect(store.rows.length).toBeLessThanOrEqual(LIMITS.rowsMax);
      for (const [index, each] of store.rows.entries()) {
        const place = seen.get(each.id);
        if (place !== undefined) expect(place).toBe(store.base + index);
      }
      note();
    }
    expect([...seen.keys()]).toEqual(walk.rows.map((each) => each.id));
    expect(store.count).toBe(500);
  });

  test("back to the newest brings every row to the place that it had", () => {
    const walk = new Walk(upTo(500));
    const store = started(walk);
    while (store.older.kind !== "end") walk.older(store);
    while (store.newer !== null) {
      expect(walk.newer(store)).toBe(0);
      for (const [index, each] of store.rows.entries()) {
        expect(walk.rows[store.base + index]?.id).toBe(each.id);
      }
    }
    expect(store.base).toBe(0);
    expect(store.isAtHead).toBe(true);
    expect(ids(store)[0]).toBe(walk.rows[0]?.id);
    while (store.older.kind !== "end") walk.older(store);
    expect(store.count).toBe(500);
  });

  test("from the oldest upwards says by how much what is shown moves", () => {
    const walk = new Walk(upTo(100));
    const store = new RowStore(LIMITS);
    store.start(walk.page(80, 20));
    expect(store.isAtHead).toBe(false);
    expect(walk.newer(store)).toBe(20);
    expect(ids(store)).toEqual(walk.rows.slice(60).map((each) => each.id));
  });
});

describe("a tail", () => {
  test("is shown at once to who follows, and moves nobody who does not", () => {
    const walk = new Walk(upTo(100));
    const store = started(walk);
    expect(store.arrive(upTo(5, 100), true)).toBe(5);
    expect(ids(store).slice(0, 6)).toEqual([1104, 1103, 1102, 1101, 1100, 1099].map(String));
    const before = ids(store);
    store.arrive(upTo(5, 105), false);
    expect(ids(store)).toEqual(before);
    expect(store.freshCount).toBe(5);
    expect(store.showHeld()).toBe(true);
    expect(store.freshCount).toBe(0);
    expect(ids(store)[0]).toBe("1109");
    expect(isSorted(store)).toBe(true);
  });

  test("that repeats rows, or brings those of pages, shows each once", () => {
    const walk = new Walk(upTo(100));
    const store = started(walk);
    store.arrive(upTo(10, 95), true);
    expect(store.arrive(upTo(10, 95), true)).toBe(0);
    while (store.older.kind !== "end") walk.older(store, 10);
    expect(new Set(ids(store)).size).toBe(ids(store).length);
    expect(store.count).toBe(105);
  });

  test("late rows appear in their places when the page around them is loaded", () => {
    const all = upTo(120);
    const late = all.filter((_, index) => index % 10 === 5);
    const walk = new Walk(all.filter((each) => !late.includes(each)));
    const store = new RowStore({ ...LIMITS, rowsMax: 500 });
    store.start(walk.page(0, 20));
    store.arrive(late, false);
    expect(isSorted(store)).toBe(true);
    while (store.older.kind !== "end") walk.older(store);
    expect(ids(store)).toEqual([...all].sort(compareRows).map((each) => each.id));
    expect(store.freshCount).toBe(0);
  });

  test("and a walk down and up again end with the same rows", () => {
    const walk = new Walk(upTo(300));
    const store = started(walk);
    store.arrive(upTo(10, 300), true);
    while (store.older.kind !== "end") walk.older(store);
    store.arrive(upTo(7, 310), false);
    expect(store.freshCount).toBe(7);
    while (store.newer !== null) walk.newer(store);
    expect(store.isAtHead).toBe(true);
    expect(ids(store)[0]).toBe("1309");
    expect(store.showHeld()).toBe(true);
    expect(ids(store)[0]).toBe("1316");
    expect(isSorted(store)).toBe(true);
  });

  test("of who follows for long is bounded, and older rows are found again", () => {
    const walk = new Walk(upTo(300));
    const store = started(walk);
    const stored = upTo(300);
    for (let from = 300; from < 600; from += 25) {
      store.arrive(upTo(25, from), true);
      stored.push(...upTo(25, from));
      expect(store.rows.length).toBeLessThanOrEqual(LIMITS.liveMax);
      expect(store.base).toBe(0);
    }
    expect(store.older.kind).toBe("before");
    const later = new Walk(stored);
    const seen = new Set(ids(store));
    while (store.older.kind !== "end") {
      later.older(store);
      for (const each of ids(store)) seen.add(each);
    }
    expect(seen.size).toBe(600);
  });

  test("that brings more than may be held asks for a new walk", () => {
    const store = started(new Walk(upTo(50)));
    store.arrive(upTo(LIMITS.heldMax + 1, 100), false);
    expect(store.isLost).toBe(true);
    expect(store.showHeld()).toBe(false);
    expect(store.freshCount).toBe(LIMITS.heldMax + 1);
  });

  test("of a question that finds nothing yet fills the table", () => {
    const store = new RowStore(LIMITS);
    store.start({ logs: [], next_cursor: null, prev_cursor: null });
    store.arrive(upTo(3), true);
    expect(store.count).toBe(3);
    expect(store.older.kind).toBe("end");
  });
});

test("surroundings stand in their places and can go again", () => {
  const all = upTo(60);
  const walk = new Walk(all.filter((_, index) => index % 3 === 0));
  const store = started(walk);
  const middle = store.rows[10] as Row;
  const plain = ids(store);
  const before = store.indexOf(middle);
  store.surround(all.filter((each) => Math.abs(Number(each.id) - Number(middle.id)) <= 2));
  expect(isSorted(store)).toBe(true);
  expect(store.indexOf(middle) - before).toBe(2);
  expect(store.rows.filter((each) => !store.isResult(each))).toHaveLength(4);
  store.surround([]);
  expect(ids(store)).toEqual(plain);
});

test("ids are numbers: a longer one is greater", () => {
  const one = { ...row(1), id: "999" };
  const other = { ...row(1), id: "1000" };
  expect(compareRows(one, other)).toBeGreaterThan(0);
  expect(compareRows(one, one)).toBe(0);
});
