/**
 * The scrolling of a table, outside of React: it listens to one element, and says which rows are to be drawn (`subscribe`,
 * `current`). What is where is decided in stretch.ts; here it is read from the document and written into it.
 */
import { goneOn, heightPx, inSight, type Place, placeOf, rowsMaxOf } from "./stretch";

/** Without a scroll for so long the reader rests. */
const REST_MS = 150;
/** Heights of the view in one step that are a jump. */
const JUMP_VIEWS = 20;

export interface Sight {
  /** Rows to draw, both included; the table may have fewer. */
  first: number;
  last: number;
  /** The row at the top of the document. */
  origin: number;
  isScrolling: boolean;
}

export type Align = "auto" | "start" | "center" | "end";

export class Reel {
  private readonly rowPx: number;
  private element: HTMLElement | null = null;
  private inner: HTMLElement | null = null;
  private count = 0;
  private viewPx = 0;
  private innerPx = -1;
  private place: Place = { origin: 0, topPx: 0 };
  private sight: Sight = { first: 0, last: -1, origin: 0, isScrolling: false };
  private resting: ReturnType<typeof setTimeout> | null = null;
  private readonly listeners = new Set<() => void>();
  /** Told of each scroll. */
  onScroll: (isAtTop: boolean) => void = () => undefined;

  constructor(rowPx: number) {
    this.rowPx = rowPx;
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  readonly current = (): Sight => this.sight;

  /** Follow an element, whose one child is as high as the rows; answers what ends it. */
  readonly follow = (element: HTMLElement): (() => void) => {
    this.element = element;
    this.inner = element.firstElementChild as HTMLElement;
    this.innerPx = -1;
    const measure = () => {
      this.viewPx = element.clientHeight;
      this.look(false);
    };
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    element.addEventListener("scroll", this.scrolled, { passive: true });
    this.grow();
    measure();
    return () => {
      observer.disconnect();
      element.removeEventListener("scroll", this.scrolled);
      if (this.resting !== null) clearTimeout(this.resting);
      this.element = null;
    };
  };

  /** The table has so many rows. */
  setCount(count: number): void {
    if (count === this.count) return;
    const isLess = count < this.count;
    this.count = count;
    this.goOn(false);
    this.grow();
    // More rows below change nothing in sight; and asking a document that has just changed where it is costs a layout.
    if (isLess) this.look(this.sight.isScrolling);
  }

  /** The reader looks at the very first row. */
  get isAtTop(): boolean {
    return this.place.origin === 0 && (this.element?.scrollTop ?? 0) < this.rowPx;
  }

  /** Bring a row into sight; `auto` moves only as far as needed. */
  scrollTo(index: number, align: Align): void {
    const top = index * this.rowPx;
    const end = top + this.rowPx - this.viewPx;
    const now = this.offsetPx;
    let px = now;
    if (align === "start" || (align === "auto" && top < now)) px = top;
    else if (align === "end" || (align === "auto" && end > now)) px = end;
    else if (align === "center") px = (top + end) / 2;
    if (px !== now) this.go(px, Math.max(this.count, index + 1));
  }

  /** Move by so many rows, with what is shown. Rows may come with the next drawing only. */
  shift(rows: number): void {
    const px = this.offsetPx + rows * this.rowPx;
    this.go(px, Math.max(this.count, Math.ceil((px + this.viewPx) / this.rowPx)));
  }

  /** How far the reader is below the first row of all. */
  private get offsetPx(): number {
    return this.place.origin * this.rowPx + (this.element?.scrollTop ?? 0);
  }

  private go(px: number, count: number): void {
    const here = { origin: this.place.origin, topPx: Math.max(0, px) - this.place.origin * this.rowPx };
    const fits = here.topPx >= 0 && here.topPx + this.viewPx <= heightPx(here.origin, count, this.rowPx);
    this.moveTo(fits ? here : placeOf(Math.max(0, px), count, this.rowPx), count);
    this.look(this.sight.isScrolling);
  }

  /** A browser scrolls no further than what is there: first the height, then the place. */
  private moveTo(place: Place, count = this.count): void {
    this.place = place;
    this.grow(count);
    if (this.element !== null) this.element.scrollTop = place.topPx;
  }

  private grow(count = this.count): void {
    const px = heightPx(this.place.origin, count, this.rowPx);
    if (this.inner === null || px === this.innerPx) return;
    this.innerPx = px;
    this.inner.style.height = `${px}px`;
  }

  private readonly scrolled = (): void => {
    this.goOn(true);
    if (this.resting !== null) clearTimeout(this.resting);
    this.resting = setTimeout(() => this.look(false), REST_MS);
    this.look(true);
    this.onScroll(this.isAtTop);
  };

  /** To another stretch, where this one ends. */
  private goOn(isReader: boolean): void {
    if (this.element === null || (this.place.origin === 0 && this.count <= rowsMaxOf(this.rowPx))) return;
    const topPx = this.element.scrollTop;
    const isJump = isReader && Math.abs(topPx - this.place.topPx) > JUMP_VIEWS * this.viewPx;
    const here = { origin: this.place.origin, topPx };
    const place = goneOn(here, this.count, this.viewPx, this.rowPx, isJump);
    if (place !== here) this.moveTo(place);
  }

  private look(isScrolling: boolean): void {
    if (this.element === null) return;
    const topPx = this.element.scrollTop;
    this.place = { origin: this.place.origin, topPx };
    const { first, last } = inSight(this.place, this.viewPx, this.rowPx);
    const { origin } = this.place;
    const was = this.sight;
    if (was.first === first && was.last === last && was.origin === origin && was.isScrolling === isScrolling) return;
    this.sight = { first, last, origin, isScrolling };
    for (const listener of this.listeners) listener();
  }
}
