/**
 * A table of any length: rows of one height, of which only those in sight are in the document.
 *
 * The rows are the caller's: `row(index)` draws one, `onRange` says which are in sight, so that the caller can fetch what
 * comes next. Positions are by index alone. What is put in above the reader is the caller's decision: where rows were dropped
 * at the top their places stay (`row` draws something for them), so nothing moves. A frame costs what it shows, however many
 * rows there are: which they are is computed (stretch.ts), not looked up in a list of all.
 *
 * One grid for assistive technology: the table has the focus, `active` is the row that keys act on.
 */
import {
  type CSSProperties,
  type KeyboardEventHandler,
  type ReactNode,
  type Ref,
  useEffect,
  useId,
  useImperativeHandle,
  useLayoutEffect,
  useRef,
  useState,
  useSyncExternalStore,
} from "react";
import { type Align, Reel } from "./reel";
import { Slots } from "./slots";

export const ROW_PX = 22;

export interface VirtualTableHandle {
  /** Bring a row into sight. align: where; `auto` moves only as far as needed. */
  scrollTo(index: number, align?: Align): void;
  /** The reader looks at the very first row. */
  isAtTop(): boolean;
  focus(): void;
  /** Move by so many rows, at once, with what is shown: for who put rows in above. */
  shift(rows: number): void;
}

export interface VirtualTableProps {
  /** What the table holds, for assistive technology. */
  label: string;
  count: number;
  /** The cells of a row, in elements with role="gridcell"; null for a row that is not loaded. */
  row: (index: number) => ReactNode;
  /** Same key, same row: a row keeps its element while others come and go. */
  keyOf?: (index: number) => string | number;
  /** Further attributes of a row: classes, data-*. */
  rowProps?: (index: number) => { className?: string; [data: `data-${string}`]: string | undefined };
  onRange?: (first: number, last: number) => void;
  onScroll?: (isAtTop: boolean) => void;
  onRowClick?: (index: number) => void;
  onKeyDown?: KeyboardEventHandler;
  /** Index of the row that keys act on; -1: none. */
  active?: number;
  /** Column heads, for the eye: cells say by themselves what they are. */
  head?: ReactNode;
  rowPx?: number;
  className?: string;
  /** Properties for the CSS of head and rows. */
  style?: Record<`--${string}`, string>;
  ref?: Ref<VirtualTableHandle>;
}

export function VirtualTable({
  label,
  count,
  row,
  keyOf,
  rowProps,
  onRange,
  onScroll,
  onRowClick,
  onKeyDown,
  active = -1,
  head,
  rowPx = ROW_PX,
  className = "",
  style,
  ref,
}: VirtualTableProps) {
  const scroller = useRef<HTMLDivElement>(null);
  const id = useId();
  const [reel] = useState(() => new Reel(rowPx));
  const sight = useSyncExternalStore(reel.subscribe, reel.current);
  const { origin, isScrolling } = sight;
  const first = Math.min(sight.first, count);
  const last = Math.min(sight.last, count - 1);
  const indexes = Array.from({ length: Math.max(0, last - first + 1) }, (_, place) => first + place);
  const slots = useRef(new Slots()).current.assign(indexes.map((index) => keyOf?.(index) ?? index));
  const drawn = indexes.map((index, place) => ({ index, slot: slots[place] as number }));
  // In the order of elements while they take turns, so that none is moved; at rest in that of rows, for who marks several.
  if (isScrolling) drawn.sort((one, other) => one.slot - other.slot);

  useLayoutEffect(() => reel.setCount(count), [reel, count]);
  useLayoutEffect(() => (scroller.current === null ? undefined : reel.follow(scroller.current)), [reel]);
  useLayoutEffect(() => {
    reel.onScroll = (isAtTop) => onScroll?.(isAtTop);
  }, [reel, onScroll]);

  // Also when only the count changed: the caller may have to fetch the next page still.
  // biome-ignore lint/correctness/useExhaustiveDependencies: see above
  useEffect(() => {
    if (last >= 0) onRange?.(first, last);
  }, [first, last, count, onRange]);

  useImperativeHandle(
    ref,
    () => ({
      scrollTo: (index, align = "auto") => reel.scrollTo(index, align),
      isAtTop: () => reel.isAtTop,
      focus: () => scroller.current?.focus({ preventScroll: true }),
      shift: (rows) => reel.shift(rows),
    }),
    [reel],
  );

  const isActiveShown = active >= first && active <= last;
  return (
    <div className={`table ${className}`} style={style as CSSProperties}>
      <div aria-hidden="true">{head}</div>
      <div
        className="table-scroll"
        role="grid"
        aria-label={label}
        aria-rowcount={count}
        ref={scroller}
        tabIndex={0}
        aria-activedescendant={isActiveShown ? `${id}-${active}` : undefined}
        onKeyDown={onKeyDown}
      >
        <div role="presentation" className="table-rows">
          {drawn.map(({ index, slot }) => {
            const { className: more = "", ...data } = rowProps?.(index) ?? {};
            return (
              // biome-ignore lint/a11y/useKeyWithClickEvents: the table has focus and keys
              <div
                key={slot}
                id={`${id}-${index}`}
                className={`table-row ${more}`}
                role="row"
                aria-rowindex={index + 1}
                aria-selected={index === active}
                style={{ transform: `translateY(${(index - origin) * rowPx}px)` }}
                onClick={() => onRowClick?.(index)}
                {...data}
              >
                {row(index)}
              </div>
            );
          })}
        </div>
      </div>
    </div>
  );
}
