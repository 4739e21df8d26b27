/**
 * Which rows of a table are in sight, and which stretch of them its document stands for. Rows have one height, so every answer
 * is a division, whatever the number of rows.
 *
 * A document cannot be as high as one likes: Firefox ends at 17.9 million px, Chromium at 33.5, and places are floats, which hold
 * no parts of a pixel beyond 2^23: what moves is drawn anew there at each frame. So it stands for HEIGHT_MAX_PX of rows at most, from `origin` on, and goes on to others when the reader comes near its
 * edges: seldom, and nothing that is shown moves. Its scroll bar is that of the stretch.
 */
export const HEIGHT_MAX_PX = 4_000_000;
/** Rows before an edge of the stretch at which it goes on: more than anybody scrolls between two frames. */
const EDGE_ROWS = 10_000;
/** Rows drawn beyond those in sight, above and below: scrolling runs ahead of drawing. */
const AROUND_ROWS = 12;

/** Where a reader is: the first row of the document, and how far it is scrolled. */
export interface Place {
  origin: number;
  topPx: number;
}

export const rowsMaxOf = (rowPx: number): number => Math.floor(HEIGHT_MAX_PX / rowPx);

/** Height of the document. */
export function heightPx(origin: number, count: number, rowPx: number): number {
  return Math.min(Math.max(count - origin, 0), rowsMaxOf(rowPx)) * rowPx;
}

/** The rows to draw, both included. */
export function inSight({ origin, topPx }: Place, viewPx: number, rowPx: number): { first: number; last: number } {
  const top = origin + topPx / rowPx;
  const bottom = top + viewPx / rowPx;
  return { first: Math.max(0, Math.floor(top) - AROUND_ROWS), last: Math.ceil(bottom) - 1 + AROUND_ROWS };
}

/**
 * The same place in a stretch that has room around it; the very same object where it has. isJump: the reader went there at once,
 * by the scroll bar or a key: the edge of the stretch then means the edge of all.
 */
export function goneOn(place: Place, count: number, viewPx: number, rowPx: number, isJump: boolean): Place {
  const rowsMax = rowsMaxOf(rowPx);
  const { origin, topPx } = place;
  if (count <= rowsMax) return origin === 0 ? place : placeOf(origin * rowPx + topPx, count, rowPx);
  const end = Math.min(origin + rowsMax, count);
  const bottomPx = (end - origin) * rowPx - viewPx;
  if (isJump && topPx <= 0 && origin > 0) return { origin: 0, topPx: 0 };
  if (isJump && topPx >= bottomPx - 1 && end < count) return placeOf(count * rowPx - viewPx, count, rowPx);
  const isNearTop = origin > 0 && topPx < EDGE_ROWS * rowPx;
  const isNearEnd = end < count && topPx > bottomPx - EDGE_ROWS * rowPx;
  const isBeyond = topPx > bottomPx + viewPx;
  if (isBeyond) return placeOf(Math.max(0, count * rowPx - viewPx), count, rowPx);
  return isNearTop || isNearEnd ? placeOf(origin * rowPx + topPx, count, rowPx) : place;
}

/** The place that lies so far below the first row of all, in the middle of its stretch where that has two sides. */
export function placeOf(px: number, count: number, rowPx: number): Place {
  const rowsMax = rowsMaxOf(rowPx);
  const origin = count <= rowsMax ? 0 : Math.max(0, Math.floor(px / rowPx) - Math.floor(rowsMax / 2));
  return { origin, topPx: px - origin * rowPx };
}
