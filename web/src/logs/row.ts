import type { Log } from "../api/client";

/** A log as a row of the table. Never changed after it was parsed. */
export type Row = Log;

/** Newest first, by (timestamp, id), as pages are. Timestamps are all written alike, ids are decimal numbers. */
export function compareRows(a: Row, b: Row): number {
  if (a.timestamp !== b.timestamp) return a.timestamp > b.timestamp ? -1 : 1;
  if (a.id.length !== b.id.length) return b.id.length - a.id.length;
  return a.id === b.id ? 0 : a.id > b.id ? -1 : 1;
}

/** Index of the first row that is not newer than the given one: its own, or where it belongs. */
export function placeOf(rows: readonly Row[], row: Row): number {
  let low = 0;
  let high = rows.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (compareRows(rows[middle] as Row, row) < 0) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Two sorted lists as one. */
export function mergeRows(a: readonly Row[], b: readonly Row[]): Row[] {
  if (b.length === 0) return a as Row[];
  if (a.length === 0) return b as Row[];
  const merged: Row[] = new Array(a.length + b.length);
  let i = 0;
  let j = 0;
  for (let k = 0; k < merged.length; k++) {
    const left = a[i];
    const right = b[j];
    if (right === undefined || (left !== undefined && compareRows(left, right) <= 0)) {
      merged[k] = left as Row;
      i += 1;
    } else {
      merged[k] = right;
      j += 1;
    }
  }
  return merged;
}
