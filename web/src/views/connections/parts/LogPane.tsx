import { type KeyboardEvent, useCallback, useEffect, useRef, useState, useSyncExternalStore } from "react";
import { useZone } from "../../../app/theme";
import { Button } from "../../../shared/Button";
import { Level } from "../../../shared/Level";
import { ErrorState, Loading } from "../../../shared/states";
import { shownCount, shownMoment } from "../../../shared/times";
import { VirtualTable, type VirtualTableHandle } from "../../../shared/VirtualTable";
import { askOf, Lines, lineNumber, ROWS_MAX } from "../engine/lines";
import type { Side } from "../queries";
import type { Jump } from "./ConnectionCard";

/** Rows before the end (of few: half of them) at which the next page is asked for. */
const AHEAD_ROWS = 200;

/** The log of one side, oldest first. jump: a line to be shown. */
export function LogPane({ id, side, jump }: { id: string; side: Side; jump: Jump | null }) {
  const [lines] = useState(() => new Lines(askOf(id, side)));
  const view = useSyncExternalStore(lines.subscribe, lines.current);
  const table = useRef<VirtualTableHandle>(null);
  const [active, setActive] = useState(0);
  const zone = useZone();

  useEffect(() => {
    void lines.begin(null);
    return () => lines.end();
  }, [lines]);

  const rowOf = useCallback(
    (line: number) => lines.current().rows.findIndex((row) => lineNumber(row) === line),
    [lines],
  );
  const show = useCallback(
    (line: number) => {
      const index = rowOf(line);
      if (index < 0) return false;
      setActive(line);
      table.current?.scrollTo(index, "center");
      return true;
    },
    [rowOf],
  );
  useEffect(() => {
    if (jump === null || show(jump.line)) return;
    let isOver = false;
    void lines.begin(jump.time).then(() => {
      // The table has the new rows after it was drawn.
      if (!isOver) requestAnimationFrame(() => show(jump.line));
    });
    return () => {
      isOver = true;
    };
  }, [jump, lines, show]);

  if (view.phase === "failed" && view.problem !== null) {
    return <ErrorState problem={view.problem} onRetry={() => void lines.begin(null)} />;
  }
  if (view.generation === 0) return <Loading label="Asking for lines" />;
  const { rows } = view;
  const move = (event: KeyboardEvent) => {
    const at = rowOf(active);
    const to = { j: at + 1, ArrowDown: at + 1, k: at - 1, ArrowUp: at - 1, g: 0, G: rows.length - 1 }[event.key];
    if (to === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const row = rows[Math.min(Math.max(to, 0), rows.length - 1)];
    if (row === undefined) return;
    setActive(lineNumber(row));
    table.current?.scrollTo(rows.indexOf(row));
  };
  return (
    <div className="pane-lines">
      {view.isFromMiddle && (
        <p className="pane-note">
          From line {shownCount(lineNumber(rows[0] ?? ({ metadata: {} } as never)))} on.{" "}
          <button type="button" className="link-button" onClick={() => void lines.begin(null)}>
            From the first line
          </button>
        </p>
      )}
      {rows.length === 0 ? (
        <p className="pane-note muted">No lines: they are on their way, or past their retention.</p>
      ) : (
        <VirtualTable
          ref={table}
          label={`Lines of the ${side}, oldest first`}
          className="pane-table"
          count={rows.length}
          active={rowOf(active)}
          keyOf={(index) => rows[index]?.id ?? index}
          onRange={(_, last) => {
            if (last > rows.length - Math.min(AHEAD_ROWS, rows.length / 2)) void lines.more();
          }}
          onKeyDown={move}
          onRowClick={(index) => {
            const row = rows[index];
            if (row !== undefined) setActive(lineNumber(row));
          }}
          rowProps={(index) => ({
            className: "pane-row",
            "data-level": rows[index]?.level,
            "data-line": String(rows[index] === undefined ? "" : lineNumber(rows[index])),
          })}
          row={(index) => {
            const row = rows[index];
            if (row === undefined) return <span role="gridcell">…</span>;
            return (
              <>
                <span role="gridcell" className="muted number">
                  {lineNumber(row)}
                </span>
                <span role="gridcell" className="mono pane-time" title={row.timestamp}>
                  {shownMoment(row.timestamp, zone).slice(-8)}
                </span>
                <span role="gridcell">
                  <Level level={row.level} />
                </span>
                <span role="gridcell" className="mono pane-message" title={row.message.slice(0, 2_000)}>
                  {row.message.slice(0, 600)}
                </span>
              </>
            );
          }}
        />
      )}
      {view.isFull && (
        <p className="pane-note">
          {shownCount(ROWS_MAX)} lines are shown. <Button onClick={() => void lines.goOn()}>Go on from here</Button>
        </p>
      )}
    </div>
  );
}
