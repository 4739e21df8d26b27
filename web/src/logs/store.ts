/**
 * The rows of the table, outside of React: a window over one walk of pages, with what a tail adds above it.
 *
 * The window is a list of segments, newest first: the live one (rows of the tail), then pages, each with the cursors that
 * lead on from it. When it grows past its limit a segment goes on the far side, and its cursor brings exactly it back.
 * Places of segments that went at the top stay (`base`): positions are counted from the first row there ever was, so nothing
 * that is shown moves.
 *
 * Rows of the tail are shown at once only while the reader follows the newest; else they are held, and put in when asked for.
 * Late ones (older than what was loaded) are held until the page that they belong to is loaded. What cannot be held is not:
 * `isLost` then says that only a new walk shows everything.
 *
 * Bounds: rowsMax in the window, liveMax while following, heldMax held. Nothing here waits or asks; see explorer.ts.
 */
import { compareRows, mergeRows, placeOf, type Row } from "./row";

export interface Page {
  logs: Row[];
  next_cursor: string | null;
  prev_cursor: string | null;
}

/** How the walk goes on behind the last row. `before`: no cursor leads there; a walk that ends at this row does. */
export type Older =
  | { kind: "cursor"; cursor: string }
  | { kind: "before"; row: Row }
  | { kind: "end" }
  | { kind: "none" };

interface Segment {
  rows: Row[];
  older: Older;
  /** Leads to the page above; null: this is the walk's first page, or the live segment. */
  prev: string | null;
  isLive: boolean;
}

export interface Limits {
  rowsMax: number;
  liveMax: number;
  heldMax: number;
}

export const LIMITS: Limits = { rowsMax: 20_000, liveMax: 50_000, heldMax: 50_000 };

export class RowStore {
  private segments: Segment[] = [];
  private held: Row[] = [];
  private shownIds = new Set<string>();
  private heldIds = new Set<string>();
  private around: Row[] = [];
  private flat: Row[] | null = null;
  private lost = false;
  private fresh = 0;
  /** The newest row that was shown, for when the live segment comes back. */
  private newestSeen: Row | null = null;
  private baseRows = 0;
  private readonly limits: Limits;

  constructor(limits: Limits = LIMITS) {
    this.limits = limits;
  }

  /** Rows above the window whose places are kept. */
  get base(): number {
    return this.baseRows;
  }

  /** Places in all: of rows above, and of the window. */
  get count(): number {
    return this.baseRows + this.rows.length;
  }

  /** The window, newest first, with the surroundings that were asked for. */
  get rows(): readonly Row[] {
    if (this.flat === null) {
      const shown =
        this.segments.length === 1 ? (this.segments[0] as Segment).rows : this.segments.flatMap((each) => each.rows);
      const around = this.around.filter((row) => !this.shownIds.has(row.id));
      this.flat = mergeRows(shown, around);
    }
    return this.flat;
  }

  /** The row at a place; undefined where it is not in the window. */
  at(index: number): Row | undefined {
    return index < this.baseRows ? undefined : this.rows[index - this.baseRows];
  }

  /** The place of a row; -1 when it is not in the window. */
  indexOf(row: Row): number {
    const index = placeOf(this.rows, row);
    return this.rows[index]?.id === row.id ? this.baseRows + index : -1;
  }

  /** Whether it matches the question, or is there as the surroundings of one that does. */
  isResult(row: Row): boolean {
    return this.shownIds.has(row.id);
  }

  /** Rows of the tail that are newer than all that is shown, and not shown. */
  get freshCount(): number {
    return this.fresh;
  }

  /** Some rows of the tail were not kept: only a new walk shows them. */
  get isLost(): boolean {
    return this.lost;
  }

  /** The window begins with the newest there is. */
  get isAtHead(): boolean {
    return this.segments[0]?.isLive ?? false;
  }

  get older(): Older {
    const last = this.segments.at(-1);
    if (last === undefined) return { kind: "end" };
    const row = last.rows.at(-1);
    if (last.older.kind !== "none" || row === undefined) return last.older;
    return { kind: "before", row };
  }

  /** Cursor of the page above the window; null at the head. */
  get newer(): string | null {
    return this.segments[0]?.prev ?? null;
  }

  /** Begin with the first page of a walk; one with rows above it began at the oldest. */
  start(page: Page): void {
    const isHead = page.prev_cursor === null;
    this.segments = isHead ? [liveSegment(), segmentOf(page)] : [segmentOf(page)];
    this.held = [];
    this.heldIds.clear();
    this.around = [];
    this.baseRows = 0;
    this.fresh = 0;
    this.lost = false;
    this.shownIds = new Set(page.logs.map((row) => row.id));
    this.newestSeen = page.logs[0] ?? null;
    this.flat = null;
  }

  /** Add the page behind the window; the far side goes where the window would grow too large. */
  addOlder(page: Page): void {
    const older = this.older;
    const isBelow = (row: Row) => older.kind !== "before" || compareRows(row, older.row) > 0;
    const rows = page.logs.filter((row) => !this.shownIds.has(row.id) && isBelow(row));
    this.segments.push({ ...segmentOf(page), rows });
    this.show(rows);
    this.placeHeld(false);
    this.dropTop();
  }

  /**
   * Add the page above the window, which `newer` led to. Answers by how many places everything shown has moved down (less
   * than 0: up), which is 0 unless the page is not as long as it was.
   */
  addNewer(page: Page): number {
    const rows = page.logs.filter((row) => !this.shownIds.has(row.id));
    this.segments.unshift({ ...segmentOf(page), rows });
    this.show(rows);
    this.placeHeld(false);
    const isHead = page.prev_cursor === null;
    if (isHead) this.addLiveAgain();
    const added = (this.segments[0] as Segment).rows.length + (isHead ? (this.segments[1] as Segment).rows.length : 0);
    const expected = this.baseRows - added;
    this.baseRows = isHead ? 0 : Math.max(0, expected);
    this.dropBottom(this.limits.rowsMax);
    return this.baseRows - expected;
  }

  /** Rows of the tail. isFollowing: the reader is at the head and wants them at once. Answers how many were new. */
  arrive(rows: readonly Row[], isFollowing: boolean): number {
    const fresh: Row[] = [];
    for (const row of rows) {
      if (this.shownIds.has(row.id) || this.heldIds.has(row.id)) continue;
      this.heldIds.add(row.id);
      fresh.push(row);
    }
    if (fresh.length === 0) return 0;
    fresh.sort(compareRows);
    this.held = mergeRows(this.held, fresh);
    if (isFollowing && this.isAtHead && !this.lost) {
      this.showAbove();
    } else {
      const newest = this.newestSeen;
      this.fresh += newest === null ? fresh.length : placeOf(fresh, newest);
      this.placeHeld(false);
    }
    if (this.held.length > this.limits.heldMax) {
      this.held = [];
      this.heldIds.clear();
      this.lost = true;
    }
    this.flat = null;
    return fresh.length;
  }

  /** Show what is held above. False: a new walk has to begin, since the head is not in the window or rows were lost. */
  showHeld(): boolean {
    if (!this.isAtHead || this.lost) return false;
    this.showAbove();
    return true;
  }

  /** Neighbours of a row, in their places among the others. Empty: none any more. */
  surround(rows: readonly Row[]): void {
    this.around = [...rows].sort(compareRows);
    this.flat = null;
  }

  private show(rows: readonly Row[]): void {
    for (const row of rows) {
      this.shownIds.add(row.id);
      if (this.heldIds.delete(row.id)) this.held.splice(placeOf(this.held, row), 1);
    }
    this.flat = null;
  }

  private showAbove(): void {
    this.placeHeld(true);
    this.fresh = 0;
    this.newestSeen = this.rows[0] ?? this.newestSeen;
    this.dropBottom(this.limits.liveMax);
  }

  /** Put held rows where they belong among those shown. withNewer: also those above all of these. */
  private placeHeld(withNewer: boolean): void {
    const top = this.segments.find((each) => each.rows.length > 0)?.rows[0];
    const from = withNewer ? 0 : top === undefined ? this.held.length : placeOf(this.held, top);
    let rest = this.held.slice(from);
    for (const [index, segment] of this.segments.entries()) {
      if (rest.length === 0) break;
      const cut = this.reach(index, segment, rest);
      this.into(segment, rest.slice(0, cut));
      rest = rest.slice(cut);
    }
    this.held = [...this.held.slice(0, from), ...rest];
    this.flat = null;
  }

  /** How many of these rows, which are below the segments above, belong into this one. */
  private reach(index: number, segment: Segment, rows: Row[]): number {
    const last = segment.rows.at(-1);
    const isLast = index === this.segments.length - 1;
    if (segment.isLive && !isLast) {
      const below = this.segments.find((each) => !each.isLive && each.rows.length > 0)?.rows[0];
      return below === undefined ? rows.length : placeOf(rows, below);
    }
    if (isLast && segment.older.kind === "end") return rows.length;
    return last === undefined ? 0 : placeOf(rows, last);
  }

  private into(segment: Segment, rows: Row[]): void {
    if (rows.length === 0) return;
    segment.rows = mergeRows(segment.rows, rows);
    for (const row of rows) {
      this.heldIds.delete(row.id);
      this.shownIds.add(row.id);
    }
  }

  /** The walk's first page is back: above it are the rows of the tail that were shown before. */
  private addLiveAgain(): void {
    const seen = this.newestSeen;
    const top = this.segments[0]?.rows[0];
    const from = seen === null ? this.held.length : placeOf(this.held, seen);
    const to = top === undefined ? this.held.length : placeOf(this.held, top);
    const rows = this.held.slice(from, Math.max(from, to));
    this.held = [...this.held.slice(0, from), ...this.held.slice(Math.max(from, to))];
    const live = liveSegment();
    this.into(live, rows);
    this.segments.unshift(live);
    this.flat = null;
  }

  private get size(): number {
    return this.segments.reduce((sum, each) => sum + each.rows.length, 0);
  }

  private dropTop(): void {
    let size = this.size;
    while (size > this.limits.rowsMax && this.segments.length > 1) {
      const [top] = this.segments.splice(0, 1) as [Segment];
      for (const row of top.rows) this.shownIds.delete(row.id);
      if (top.isLive) {
        // No cursor leads back to these.
        for (const row of top.rows) this.heldIds.add(row.id);
        this.held = mergeRows(top.rows, this.held);
      }
      this.baseRows += top.rows.length;
      size -= top.rows.length;
    }
    this.flat = null;
  }

  private dropBottom(rowsMax: number): void {
    let size = this.size;
    while (size > rowsMax && this.segments.length > 1) {
      const bottom = this.segments.pop() as Segment;
      for (const row of bottom.rows) this.shownIds.delete(row.id);
      size -= bottom.rows.length;
    }
    const only = this.segments[0];
    if (this.segments.length === 1 && only !== undefined && only.rows.length > rowsMax) {
      for (const row of only.rows.slice(rowsMax)) this.shownIds.delete(row.id);
      only.rows = only.rows.slice(0, rowsMax);
      only.older = { kind: "before", row: only.rows.at(-1) as Row };
    }
    this.flat = null;
  }
}

function liveSegment(): Segment {
  return { rows: [], older: { kind: "none" }, prev: null, isLive: true };
}

function segmentOf(page: Page): Segment {
  const older: Older = page.next_cursor === null ? { kind: "end" } : { kind: "cursor", cursor: page.next_cursor };
  return { rows: page.logs, older, prev: page.prev_cursor, isLive: false };
}
